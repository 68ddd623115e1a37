/*
 * /dev/kvm and the VM's fd. Set up before any thread starts, then constant.
 *
 * What is asked of KVM goes through kvm_ioctl(), so that a unit test can play the KVM of a host
 * that is not this one. Only KVM_RUN and the making of a vCPU go to the kernel directly (vcpu.c).
 */
#ifndef GODWIT_KVM_H
#define GODWIT_KVM_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct kvm;

/* How KVM is asked. As ioctl(2): -1 and errno when it refuses. Any thread. */
struct kvm_ops {
	int (*ioctl)(const struct kvm *k, int fd, unsigned long request, void *arg);
};

struct kvm {
	const struct kvm_ops *ops; /* the kernel's, but in unit tests */
	int dev_fd, vm_fd;
	uint32_t vcpu_map_bytes; /* of the shared kvm_run page(s) */
	uint32_t max_vcpus;
	bool manual_protect;   /* the dirty log is cleared by KVM_CLEAR_DIRTY_LOG, in parts */
	uint32_t ring_entries; /* of each vCPU's dirty ring; 0: a bitmap, no rings */
};

/* Opens /dev/kvm; a sentence says which group or module is missing. API version 12 is required. */
int kvm_open_device(struct err *e);

/* Opens the device and makes a VM, with dirty rings if ring_entries is not 0. */
int kvm_init(struct kvm *k, uint32_t ring_entries, struct err *e);
void kvm_free(struct kvm *k);

/* As ioctl(2), on the fd of the device, of the VM or of one of its vCPUs. */
int kvm_ioctl(const struct kvm *k, int fd, unsigned long request, const void *arg);

/* KVM_CHECK_EXTENSION on the VM: 0 = not there. */
int kvm_has(const struct kvm *k, int capability);

/* The most entries that a dirty ring may have here; 0: this KVM has none. */
uint32_t kvm_ring_entries_max(const struct kvm *k);

/* ioctl on the VM's fd: 0 or more, or -1 with "NAME: reason". */
int kvm_vm_ioctl(const struct kvm *k, unsigned long request, void *arg, const char *name,
		 struct err *e);

#endif
