/*
 * How the guest of a machine begins, for the first time and after a reset. Owner's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/machine_internal.h"

static int open_image(const struct tree *t, const char *prop, int *fd, const char **name,
		      struct err *e)
{
	struct stat st;

	if (tree_str(t, "/host/boot", prop, name, e))
		return -1;
	if (*fd >= 0)
		return 0;
	/* NONBLOCK, so that a FIFO without a writer does not block; files ignore it. */
	*fd = io_open(*name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0,
		      tree_is_without_links(t, "/host/boot", prop));
	if (*fd < 0)
		return err_errno(e, errno, "%s: cannot open the %s", *name, prop);
	if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
		close(*fd);
		*fd = -1;
		return err_set(e, "%s: the %s is not a regular file", *name, prop);
	}
	return 0;
}

int machine_open_boot(struct machine *m, struct err *e)
{
	const char *name;

	if (open_image(&m->tree, "kernel", &m->kernel_fd, &name, e))
		return -1;
	if (tree_has(&m->tree, "/host/boot", "initrd") &&
	    open_image(&m->tree, "initrd", &m->initrd_fd, &name, e))
		return -1;
	return 0;
}

int machine_boot(struct machine *m, struct err *e)
{
	struct arch_boot b = { 0 };

	if (machine_open_boot(m, e) ||
	    tree_str(&m->tree, "/host/boot", "kernel", &b.kernel_name, e))
		return -1;
	if (m->initrd_fd >= 0 && tree_str(&m->tree, "/host/boot", "initrd", &b.initrd_name, e))
		return -1;
	b.kernel_fd = m->kernel_fd;
	b.initrd_fd = m->initrd_fd;
	b.memory_is_fresh = !m->used;
	m->used = true;
	return arch_boot(m->arch, &m->memory, &m->tree, &m->vcpus[0], &b, e);
}

/*
 * A guest that has asked for a reset often asks again at once, in another way, and each vCPU for
 * itself. All requests from before it was parked are one reset; a second would hit the guest that
 * was just started.
 */
static void forget_resets(struct machine *m)
{
	uint32_t asked = __atomic_load_n(&m->requested, __ATOMIC_ACQUIRE);

	while ((asked == REQUEST_RESET || asked == REQUEST_HOST_RESET) &&
	       !__atomic_compare_exchange_n(&m->requested, &asked, REQUEST_NONE, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

int machine_reset(struct machine *m, struct err *e)
{
	struct device_balloon b;
	bool ballooned;

	machine_park(m);
	forget_resets(m);
	ballooned = machine_ask_balloon(m, &b, NULL) == 0;
	if (machine_snapshot_apply(m, &m->pristine, 0, e) || machine_boot(m, e)) {
		m->status = MACHINE_INTERNAL_ERROR;
		return -1;
	}
	machine_errors_forget(m);
	if (m->status == MACHINE_IO_ERROR)
		m->status = MACHINE_PAUSED;
	/* The host has asked for it, not the guest: a reset does not change it. */
	if (ballooned)
		machine_set_ballooned(m, b.wanted_bytes);
	return 0;
}
