/*
 * Without a KVM (kvm == NULL, in the unit tests) lines and doorbells are plain eventfds.
 */
#include "vmm/irq.h"

#include <linux/kvm.h>
#include <stddef.h>

#include "vmm/base/wake.h"
#include "vmm/kvm.h"

int irq_init(struct irq *i, struct kvm *kvm, uint32_t gsi, struct err *e)
{
	struct kvm_irqfd irqfd = { .gsi = gsi };

	i->gsi = gsi;
	if (wake_init(&i->fd, e))
		return -1;
	irqfd.fd = (uint32_t)i->fd;
	if (kvm && kvm_vm_ioctl(kvm, KVM_IRQFD, &irqfd, "KVM_IRQFD", e) < 0) {
		irq_free(i);
		return -1;
	}
	return 0;
}

void irq_free(struct irq *i)
{
	/* Closing the last reference takes the line out of KVM as well. */
	wake_free(&i->fd);
}

void irq_pulse(struct irq *i)
{
	wake_signal(i->fd);
}

static int doorbell(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value, uint32_t flags,
		    struct err *e)
{
	struct kvm_ioeventfd bell = {
		.datamatch = value,
		.addr = gpa,
		.len = 4,
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
	};

	if (!kvm)
		return 0;
	return kvm_vm_ioctl(kvm, KVM_IOEVENTFD, &bell, "KVM_IOEVENTFD", e) < 0 ? -1 : 0;
}

int doorbell_add(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value, struct err *e)
{
	return doorbell(kvm, fd, gpa, value, 0, e);
}

void doorbell_remove(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value)
{
	doorbell(kvm, fd, gpa, value, KVM_IOEVENTFD_FLAG_DEASSIGN, NULL);
}
