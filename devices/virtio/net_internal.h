/*
 * The network device from within: net.c is its life, its registers and its state, net_frames.c
 * moves frames, net_announce.c tells switches and the guest of its new place. Nobody else includes
 * this.
 */
#ifndef GODWIT_VIRTIO_NET_INTERNAL_H
#define GODWIT_VIRTIO_NET_INTERNAL_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/backend/tap.h"
#include "devices/virtio/device.h"
#include "vmm/loop.h"

#define QUEUE_RX      0
#define QUEUE_TX      1
#define QUEUE_CONTROL 2
#define QUEUES	      3

#define NET_DEVICE_ID	     1
#define NET_F_CSUM	     0
#define NET_F_GUEST_CSUM     1
#define NET_F_MAC	     5
#define NET_F_GUEST_TSO4     7
#define NET_F_GUEST_TSO6     8
#define NET_F_GUEST_ECN	     9
#define NET_F_HOST_TSO4	     11
#define NET_F_HOST_TSO6	     12
#define NET_F_HOST_ECN	     13
#define NET_F_MRG_RXBUF	     15
#define NET_F_STATUS	     16
#define NET_F_CTRL_VQ	     17
#define NET_F_GUEST_ANNOUNCE 21

#define NET_FEATURES                                                                               \
	(VIRTIO_BIT(NET_F_CSUM) | VIRTIO_BIT(NET_F_GUEST_CSUM) | VIRTIO_BIT(NET_F_MAC) |           \
	 VIRTIO_BIT(NET_F_GUEST_TSO4) | VIRTIO_BIT(NET_F_GUEST_TSO6) |                             \
	 VIRTIO_BIT(NET_F_GUEST_ECN) | VIRTIO_BIT(NET_F_HOST_TSO4) | VIRTIO_BIT(NET_F_HOST_TSO6) | \
	 VIRTIO_BIT(NET_F_HOST_ECN) | VIRTIO_BIT(NET_F_MRG_RXBUF) | VIRTIO_BIT(NET_F_STATUS) |     \
	 VIRTIO_BIT(NET_F_CTRL_VQ) | VIRTIO_BIT(NET_F_GUEST_ANNOUNCE) |                            \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |                     \
	 VIRTIO_BIT(VIRTIO_F_VERSION_1))

#define NET_STATUS_LINK_UP  1
#define NET_STATUS_ANNOUNCE 2

#define NET_CTRL_ANNOUNCE     3
#define NET_CTRL_ANNOUNCE_ACK 0
#define NET_OK		      0
#define NET_ERR		      1

/* Bytes of the header in front of a frame, and where it says how many buffers a frame took. */
#define HEADER_BYTES	   TAP_HEADER_BYTES
#define HEADER_NUM_BUFFERS 10

#define FRAME_MAX (HEADER_BYTES + 65535 + 64) /* the largest segment, Ethernet and VLAN headers */

/* How much is done before other devices have their turn. */
#define TURN_FRAMES   64
#define TURN_BYTES    (1u << 20)
#define TURN_COMMANDS 16

struct net_state {
	struct virtio_state virtio;
	bool announce;	 /* the guest was asked to, and has not yet */
	uint8_t link_up; /* what it was told of its link */
};

struct net {
	struct virtio_device v; /* first */
	int tap;
	struct loop_watch watch;

	/* Under lock. */
	struct {
		uint8_t mac[6];
		uint16_t status; /* little endian */
	} config;
	bool starved; /* the guest has no buffers: the tap is not read */
	bool blocked; /* the tap takes no more: until EPOLLOUT */
	bool gone;    /* the interface was removed */
	bool misfit_logged;
	uint32_t watched;    /* the events that are watched for now; 0: none */
	uint32_t held_bytes; /* a frame that was read and not given to the guest yet */
	uint8_t held[FRAME_MAX];
	struct queue_chain chain, first; /* too large for a stack */

	/* I/O thread. */
	struct loop_watch announcing; /* a timerfd, -1 before the first announcement */
	unsigned int announced;	      /* rounds so far */
};

_Static_assert(offsetof(struct net, config.status) == offsetof(struct net, config.mac) + 6,
	       "the configuration space has no holes");

static inline void net_set_status(struct net *n, uint16_t bits, bool on)
{
	uint16_t status = le16toh(n->config.status);

	n->config.status = htole16((uint16_t)(on ? status | bits : status & ~bits));
}

/* -- net.c; lock held -- */

/* The interface is gone: the guest's link goes down, and the tap is watched no more. */
void net_lose_tap(struct net *n);

/* -- net_frames.c; lock held -- */

/* From the tap to the guest, and from the guest to the tap: a turn of each. */
void net_receive(struct net *n);
void net_transmit(struct net *n);

/* -- net_announce.c; I/O thread -- */

/* Before the others. */
void net_announce_init(struct net *n);
/* The guest has just come here. */
void net_announce(struct device *d);
void net_stop_announcing(struct net *n);

#endif
