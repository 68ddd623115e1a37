/*
 * Interrupt lines and doorbells: see irq.h. Without a KVM (kvm == NULL, the unit tests) they are
 * plain eventfds.
 */
#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"

int irq_init(struct irq *i, struct kvm *kvm, uint32_t gsi, struct err *e)
{
	struct kvm_irqfd irqfd = { .gsi = gsi };

	i->gsi = gsi;
	i->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (i->fd < 0)
		return err_errno(e, errno, "cannot make an eventfd");
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
	if (i->fd >= 0)
		close(i->fd);
	i->fd = -1;
}

void irq_pulse(struct irq *i)
{
	uint64_t one = 1;

	/* EAGAIN only when 2^64 - 2 edges wait for KVM: there is one pending in any case. */
	while (write(i->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
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
