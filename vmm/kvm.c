/*
 * /dev/kvm: see kvm.h.
 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"

/* The capabilities without which a machine cannot be built here. */
static const struct {
	int number;
	const char *name;
} needed[] = {
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_IRQFD, "KVM_CAP_IRQFD" },
	{ KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
};

static int kernel_ioctl(const struct kvm *k, int fd, unsigned long request, void *arg)
{
	(void)k;
	return ioctl(fd, request, arg);
}

static const struct kvm_ops kernel = { .ioctl = kernel_ioctl };

int kvm_ioctl(const struct kvm *k, int fd, unsigned long request, const void *arg)
{
	return k->ops->ioctl(k, fd, request, (void *)(uintptr_t)arg);
}

int kvm_open_device(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), version;
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return err_set(e, "/dev/kvm does not exist: load the module kvm_intel or kvm_amd "
				  "(and enable virtualisation in the firmware)");
	if (fd < 0 && (errno == ENODEV || errno == ENXIO))
		return err_set(e, "/dev/kvm is there but no KVM answers: load the module kvm_intel "
				  "or kvm_amd");
	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		if (stat("/dev/kvm", &st) == 0 && st.st_gid)
			return err_set(e,
				       "no permission to open /dev/kvm: add the user to its group "
				       "(id %u, usually 'kvm')",
				       (unsigned int)st.st_gid);
		return err_set(e, "no permission to open /dev/kvm: it belongs to root");
	}
	if (fd < 0)
		return err_errno(e, errno, "cannot open /dev/kvm");
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version < 0) {
		err_errno(e, errno, "/dev/kvm is not KVM: it does not tell its API version");
		close(fd);
		return -1;
	}
	if (version != KVM_API_VERSION) {
		close(fd);
		return err_set(e, "/dev/kvm has API version %d, expected %d", version,
			       KVM_API_VERSION);
	}
	return fd;
}

/*
 * Manual protection: the log is read without protecting anything, and pages are protected when
 * they are cleared; all of them count as dirty at first (INITIALLY_SET), so that starting the log
 * costs nothing. Either both or none.
 */
static bool enable_manual_protect(const struct kvm *k)
{
	const int both = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args[0] = both,
	};

	return (kvm_has(k, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & both) == both &&
	       kvm_ioctl(k, k->vm_fd, KVM_ENABLE_CAP, &cap) == 0;
}

static int ring_capability(const struct kvm *k)
{
	return kvm_has(k, KVM_CAP_DIRTY_LOG_RING_ACQ_REL) ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL
							  : KVM_CAP_DIRTY_LOG_RING;
}

uint32_t kvm_ring_entries_max(const struct kvm *k)
{
	return (uint32_t)kvm_has(k, ring_capability(k)) / sizeof(struct kvm_dirty_gfn);
}

/* Before the first vCPU. Excludes the bitmap, and with it manual protection. */
static int enable_rings(struct kvm *k, uint32_t entries, struct err *e)
{
	struct kvm_enable_cap cap = {
		.cap = (uint32_t)ring_capability(k),
		.args[0] = entries * sizeof(struct kvm_dirty_gfn),
	};
	uint32_t max = kvm_ring_entries_max(k);

	if (!max)
		return err_set(e, "/host: this host's KVM has no dirty ring "
				  "(KVM_CAP_DIRTY_LOG_RING); --dirty-ring 0 does without");
	if (entries > max)
		return err_set(e,
			       "/host: a dirty ring of %" PRIu32
			       " entries, this host's KVM can have %" PRIu32,
			       entries, max);
	if (kvm_ioctl(k, k->vm_fd, KVM_ENABLE_CAP, &cap))
		return err_errno(e, errno, "/host: KVM makes no dirty ring of %" PRIu32 " entries",
				 entries);
	k->ring_entries = entries;
	return 0;
}

int kvm_init(struct kvm *k, uint32_t ring_entries, struct err *e)
{
	unsigned int i;
	int size;

	*k = (struct kvm){ .ops = &kernel, .dev_fd = -1, .vm_fd = -1 };
	k->dev_fd = kvm_open_device(e);
	if (k->dev_fd < 0)
		return -1;
	do {
		k->vm_fd = kvm_ioctl(k, k->dev_fd, KVM_CREATE_VM, NULL);
	} while (k->vm_fd < 0 && errno == EINTR);
	if (k->vm_fd < 0) {
		err_errno(e, errno, "KVM cannot make a VM");
		goto fail;
	}
	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!kvm_has(k, needed[i].number)) {
			err_set(e, "this KVM lacks %s", needed[i].name);
			goto fail;
		}
	size = kvm_ioctl(k, k->dev_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (size < (int)sizeof(struct kvm_run)) {
		err_set(e, "KVM gives a vCPU area of %d bytes", size);
		goto fail;
	}
	k->vcpu_map_bytes = (uint32_t)size;
	k->max_vcpus = (uint32_t)kvm_has(k, KVM_CAP_MAX_VCPUS);
	if (!ring_entries)
		k->manual_protect = enable_manual_protect(k);
	else if (enable_rings(k, ring_entries, e))
		goto fail;
	return 0;
fail:
	kvm_free(k);
	return -1;
}

void kvm_free(struct kvm *k)
{
	if (k->vm_fd >= 0)
		close(k->vm_fd);
	if (k->dev_fd >= 0)
		close(k->dev_fd);
	k->vm_fd = k->dev_fd = -1;
}

int kvm_has(const struct kvm *k, int capability)
{
	int n = kvm_ioctl(k, k->vm_fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)capability);

	return n < 0 ? 0 : n;
}

int kvm_vm_ioctl(const struct kvm *k, unsigned long request, void *arg, const char *name,
		 struct err *e)
{
	int rc = kvm_ioctl(k, k->vm_fd, request, arg);

	return rc < 0 ? err_errno(e, errno, "%s", name) : rc;
}
