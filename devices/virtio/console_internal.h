/*
 * The console device from within: console.c is its life, its registers and its state,
 * console_ports.c moves what ports say, bytes and control messages. Nobody else includes this.
 */
#ifndef GODWIT_VIRTIO_CONSOLE_INTERNAL_H
#define GODWIT_VIRTIO_CONSOLE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/backend/chardev.h"
#include "devices/virtio/device.h"

#define CONSOLE_DEVICE_ID   3
#define CONSOLE_F_MULTIPORT 1

#define CONSOLE_FEATURES                                                        \
	(VIRTIO_BIT(CONSOLE_F_MULTIPORT) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_VERSION_1))

#define QUEUE_PORT0_OUT	  1
#define QUEUE_CONTROL_IN  2
#define QUEUE_CONTROL_OUT 3
#define QUEUES(n_ports)	  (2 * ((n_ports) + 2))
#define PORTS_MAX	  (VIRTIO_QUEUES_MAX / 2 - 2)
#define NAME_MAX_BYTES	  63

/* How much is done before other devices have their turn. */
#define TURN_CHAINS 64
#define TURN_BYTES  (1u << 20)

enum console_event {
	EVENT_DEVICE_READY = 0,
	EVENT_PORT_ADD = 1,
	EVENT_PORT_READY = 3,
	EVENT_PORT_OPEN = 6,
	EVENT_PORT_NAME = 7,
};

struct console_control {
	uint32_t id; /* little endian, as the others */
	uint16_t event, value;
};

/* What the guest is still to be told of a port; a later one makes an earlier of its kind void. */
#define TELL_ADD   0x01
#define TELL_NAME  0x02
#define TELL_CLOSE 0x04
#define TELL_OPEN  0x08
#define TELL_MASK  0x0f

struct port_state {
	bool ready;	 /* the driver has taken the port */
	bool guest_open; /* a program in the guest has */
	bool host_open;	 /* as the guest knows it, or will when it was told */
	uint8_t tell;
	uint32_t out_done; /* bytes of the next output chain that the host has already */
};

struct console_state {
	struct virtio_state virtio;
	uint32_t n_ports;
	struct port_state ports[PORTS_MAX];
};

struct console;

struct port {
	struct console *console;
	unsigned int id; /* from 1 */
	char name[NAME_MAX_BYTES + 1];
	struct chardev *host;
	struct port_state st; /* under lock */
};

struct console {
	struct virtio_device v; /* first */
	struct {
		uint16_t cols, rows;
		uint32_t max_nr_ports, emerg_wr; /* little endian */
	} config;
	unsigned int n_ports;
	struct port ports[PORTS_MAX];
	struct queue_chain chain; /* under lock; too large for a stack */
};

static inline unsigned int port_queue_in(const struct port *p)
{
	return 2 * (p->id + 1);
}

static inline unsigned int port_queue_out(const struct port *p)
{
	return 2 * (p->id + 1) + 1;
}

/* NULL: there is no such port. */
static inline struct port *console_port(struct console *d, uint32_t id)
{
	return id >= 1 && id <= d->n_ports ? &d->ports[id - 1] : NULL;
}

/* -- console_ports.c -- */

/* Tells the guest of its ports what it has not been told yet. Lock held. */
void console_tell_all(struct console *d);
/* Control messages of the guest. Lock held. */
void console_control_out(struct console *d);
/* Bytes out of the guest; NULL: of a port that does not exist. Lock held. */
void console_out(struct console *d, struct port *p, unsigned int queue);

/* The host's side of a port. I/O thread, lock not held. */
extern const struct chardev_ops port_host_ops;

#endif
