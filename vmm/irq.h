/*
 * Interrupt lines into the in-kernel irqchip and doorbells out of the guest, both as eventfds:
 * no vCPU exit, no lock, any thread.
 */
#ifndef GODWIT_IRQ_H
#define GODWIT_IRQ_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct kvm;

/* An edge triggered interrupt line. */
struct irq {
	int fd; /* -1: not set up */
	uint32_t gsi;
};

int irq_init(struct irq *i, struct kvm *kvm, uint32_t gsi, struct err *e);
void irq_free(struct irq *i);

/* One edge. A spurious one is harmless: drivers ask the device's status. */
void irq_pulse(struct irq *i);

/* A guest write of `value` (32 bits) at MMIO address `gpa` signals the eventfd `fd`. */
int doorbell_add(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value, struct err *e);
void doorbell_remove(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value);

#endif
