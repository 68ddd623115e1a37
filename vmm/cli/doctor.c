/*
 * godwit doctor [--json]: what this host can do. Each finding is a row: a key for scripts, a
 * sentence for people. Main thread of a short-lived process. Exit code 0 when VMs can run here.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/err.h"
#include "vmm/base/options.h"
#include "vmm/base/print.h"
#include "vmm/cli/verb.h"
#include "vmm/kvm.h"
#include "vmm/probe.h"

/* On every architecture. */
static const struct arch_capability capabilities[] = {
	{ KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "interrupts from any thread", true },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "doorbells without leaving the guest", true },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "parking vCPUs", true },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE", "saving vCPUs", true },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
	  "cheap tracking of written pages", false },
	{ KVM_CAP_DIRTY_LOG_RING, "KVM_CAP_DIRTY_LOG_RING",
	  "--dirty-ring: dirty limits for each vCPU", false },
	{ .name = NULL },
};

struct findings {
	json_t *json;
	bool print, ok;
	bool slow; /* too slow for stock kernels */
};

static void say(struct findings *f, const char *mark, const char *name, const char *text)
{
	if (f->print)
		print_line(stdout, "%-4s %-34s %s", mark, name, text);
}

static const char *mark(bool present, bool needed)
{
	return present ? "ok" : needed ? "MISS" : "-";
}

static void check_list(struct findings *f, const struct kvm *k, const struct arch_capability *c,
		       json_t *list)
{
	for (; c->name; c++) {
		int value = kvm_has(k, c->number);

		json_object_set_new(list, c->name, json_integer(value));
		say(f, mark(value, c->needed), c->name, c->use);
		if (!value && c->needed)
			f->ok = false;
	}
}

static void check_capabilities(struct findings *f, const struct kvm *k)
{
	json_t *list = json_object();

	check_list(f, k, capabilities, list);
	check_list(f, k, arch_capabilities, list);
	json_object_set_new(f->json, "kvm_capabilities", list);
}

static const struct {
	const char *key, *text;
} speeds[] = {
	[PROBE_UNKNOWN] = { "unknown", "unknown" },
	[PROBE_HARDWARE] = { "hardware", "at full speed" },
	[PROBE_INTERPRETED] = { "emulated", "interpreted: too slow for stock kernels" },
};

/* Measured: a loop in kernel mode and one in user mode. */
static void check_speed(struct findings *f)
{
	enum probe_verdict verdict = PROBE_UNKNOWN;
	struct probe_result r;
	char text[192];
	struct err e;

	if (arch_probe_modes(&r, &e)) {
		snprintf(text, sizeof(text), "unknown: %.80s", e.text);
	} else {
		double kernel_ns = (double)probe_turn_ps(&r.kernel) / 1000,
		       user_ns = (double)probe_turn_ps(&r.user) / 1000;

		verdict = probe_verdict(&r);
		snprintf(text, sizeof(text), "%s: %.1f ns a turn of a loop (user mode: %.1f ns)%s",
			 speeds[verdict].text, kernel_ns, user_ns,
			 r.refused ? "; cmpxchg16b fails" : "");
		json_object_set_new(f->json, "kernel_mode_turn_ns", json_real(kernel_ns));
		json_object_set_new(f->json, "user_mode_turn_ns", json_real(user_ns));
		json_object_set_new(f->json, "kernel_mode_cmpxchg16b", json_boolean(!r.refused));
	}
	f->slow = verdict == PROBE_INTERPRETED;
	json_object_set_new(f->json, "kernel_mode_speed", json_string(speeds[verdict].key));
	say(f, mark(verdict == PROBE_HARDWARE, false), "kernel-mode guest code", text);
}

static void check_kvm(struct findings *f)
{
	struct kvm k;
	struct err e;

	if (kvm_init(&k, 0, &e)) {
		f->ok = false;
		json_object_set_new(f->json, "kvm", json_false());
		json_object_set_new(f->json, "kvm_error", json_string(e.text));
		json_object_set_new(f->json, "kernel_mode_speed", json_string("unknown"));
		say(f, "MISS", "/dev/kvm", e.text);
		return;
	}
	json_object_set_new(f->json, "kvm", json_true());
	json_object_set_new(f->json, "kvm_api_version", json_integer(KVM_API_VERSION));
	json_object_set_new(f->json, "kvm_max_vcpus", json_integer(k.max_vcpus));
	say(f, "ok", "/dev/kvm", "present, accessible, API version 12");
	json_object_set_new(f->json, "kvm_dirty_ring_entries_max",
			    json_integer(kvm_ring_entries_max(&k)));
	check_capabilities(f, &k);
	kvm_free(&k);
	check_speed(f);
}

static void check_file(struct findings *f, const char *key, const char *path, const char *use)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char text[160];

	snprintf(text, sizeof(text), "%s%s%s", use, fd < 0 ? ": " : "",
		 fd < 0 ? strerror(errno) : "");
	say(f, mark(fd >= 0, false), path, text);
	json_object_set_new(f->json, key, json_boolean(fd >= 0));
	if (fd >= 0)
		close(fd);
}

static void check_userfaultfd(struct findings *f)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		close(dev);
	} else {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	}
	json_object_set_new(f->json, "userfaultfd", json_boolean(fd >= 0));
	say(f, mark(fd >= 0, false), "userfaultfd",
	    fd >= 0 ? "for post-copy"
		    : "for post-copy: not allowed (see vm.unprivileged_userfaultfd)");
	if (fd >= 0)
		close(fd);
}

static void check_uring(struct findings *f)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(4, &ring, 0);
	char text[120];

	if (!rc)
		io_uring_queue_exit(&ring);
	snprintf(text, sizeof(text), "for disks%s%s", rc ? ": " : "", rc ? strerror(-rc) : "");
	json_object_set_new(f->json, "io_uring", json_boolean(!rc));
	say(f, mark(!rc, true), "io_uring", text);
	if (rc)
		f->ok = false;
}

static void check_memory(struct findings *f)
{
	static const struct {
		const char *field, *key, *use;
	} wanted[] = {
		{ "MemTotal:", "memory_total_kib", "memory of this host" },
		{ "MemAvailable:", "memory_available_kib", "memory that is free for guests" },
		{ "HugePages_Free:", "huge_pages_free", "reserved huge pages (not needed)" },
	};
	FILE *meminfo = fopen("/proc/meminfo", "re");
	char line[128], text[64];
	unsigned int i;

	while (meminfo && fgets(line, sizeof(line), meminfo))
		for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			size_t n = strlen(wanted[i].field);
			long long value;

			if (strncmp(line, wanted[i].field, n) ||
			    sscanf(line + n, "%lld", &value) != 1)
				continue;
			json_object_set_new(f->json, wanted[i].key, json_integer(value));
			snprintf(text, sizeof(text), i == 2 ? "%lld" : "%lld MiB",
				 i == 2 ? value : value >> 10);
			say(f, "ok", wanted[i].use, text);
		}
	if (meminfo)
		fclose(meminfo);
}

static void check_huge_pages(struct findings *f)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	FILE *file = fopen(path, "re");
	char line[64] = "";
	bool usable;

	if (file && !fgets(line, sizeof(line), file))
		line[0] = 0;
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = 0;
	usable = line[0] && !strstr(line, "[never]");
	json_object_set_new(f->json, "transparent_huge_pages", json_boolean(usable));
	say(f, mark(usable, false), "transparent huge pages", line[0] ? line : "not supported");
}

int verb_doctor(int argc, char **argv)
{
	struct verb_args args = { 0 };
	struct findings f = { .ok = true };
	int rc = verb_parse("doctor", VERB_JSON, 0, argc, argv, &args);

	if (rc >= 0)
		return rc;
	f.json = json_object();
	f.print = !args.json;
	check_kvm(&f);
	check_uring(&f);
	check_file(&f, "tun", "/dev/net/tun", "for --net");
	check_userfaultfd(&f);
	check_huge_pages(&f);
	check_memory(&f);
	json_object_set_new(f.json, "ok", json_boolean(f.ok));
	if (args.json) {
		verb_print_json(f.json);
	} else {
		print_line(stdout, "%s",
			   !f.ok    ? "This host cannot run VMs: see MISS."
			   : f.slow ? "This host can run VMs, but not stock kernels: it interprets "
				      "kernel-mode code."
				    : "This host can run VMs.");
	}
	json_decref(f.json);
	return f.ok ? VERB_DONE : VERB_FAILED;
}
