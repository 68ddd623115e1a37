/*
 * A guest that came from another host is announced a few times: by a RARP frame in its name, from
 * which switches learn where its address is now, and by asking it to speak for itself (section
 * 5.1.6.5.4), since it alone knows its VLANs and IP addresses.
 */
#include "devices/virtio/net_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"

/* "Who am I?" from the guest's address to all (RFC 903), behind an empty header. */
struct rarp_frame {
	uint8_t header[HEADER_BYTES];
	uint8_t to[6], from[6], ethertype[2];
	uint8_t hardware[2], protocol[2], address_bytes[2], operation[2];
	uint8_t sender[6], sender_ip[4], target[6], target_ip[4];
	uint8_t padding[18]; /* to the least that Ethernet takes */
};

_Static_assert(sizeof(struct rarp_frame) == HEADER_BYTES + 60, "a frame of 60 bytes");

static void net_send_rarp(const struct net *n)
{
	struct rarp_frame f = {
		.to = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		.ethertype = { 0x80, 0x35 },
		.hardware = { 0, 1 },
		.protocol = { 8, 0 },
		.address_bytes = { 6, 4 },
		.operation = { 0, 3 },
	};

	memcpy(f.from, n->config.mac, 6);
	memcpy(f.sender, n->config.mac, 6);
	memcpy(f.target, n->config.mac, 6);
	/* What the tap does not take now goes with the next round. */
	if (write(n->tap, &f, sizeof(f)) < 0)
		log_verbose("%s: an announcement was not sent: %s", n->v.dev.id, strerror(errno));
}

void net_stop_announcing(struct net *n)
{
	if (n->announcing.fd < 0)
		return;
	loop_remove(n->v.dev.env->io, &n->announcing);
	close(n->announcing.fd);
	n->announcing.fd = -1;
}

/* One round; then the timer is set for the next one, if there is one. */
static void net_announce_once(struct net *n)
{
	const struct announce *a = &n->v.dev.env->announce;
	unsigned int ms = a->initial_ms + n->announced * a->step_ms;
	struct itimerspec at = { 0 };

	pthread_mutex_lock(&n->v.lock);
	if (!n->gone)
		net_send_rarp(n);
	if (virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) && virtio_has(&n->v, NET_F_CTRL_VQ)) {
		net_set_status(n, NET_STATUS_ANNOUNCE, true);
		virtio_config_changed(&n->v);
	}
	pthread_mutex_unlock(&n->v.lock);
	if (++n->announced >= a->rounds) {
		net_stop_announcing(n);
		return;
	}
	ms = ms < a->max_ms ? ms : a->max_ms;
	at.it_value = clock_timespec(ms ? ms * 1000000ull : 1);
	timerfd_settime(n->announcing.fd, 0, &at, NULL);
}

static void net_announce_again(void *arg, uint32_t events)
{
	struct net *n = arg;
	uint64_t expired;

	(void)events;
	if (read(n->announcing.fd, &expired, sizeof(expired)) == sizeof(expired))
		net_announce_once(n);
}

void net_announce(struct device *d)
{
	struct net *n = (struct net *)d;
	unsigned int rounds = d->env->announce.rounds;

	net_stop_announcing(n);
	if (!rounds)
		return;
	n->announcing.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* Without a timer it is announced once. */
	n->announced = rounds - 1;
	if (n->announcing.fd >= 0 && loop_add(n->v.dev.env->io, &n->announcing, EPOLLIN, NULL) == 0)
		n->announced = 0;
	net_announce_once(n);
}

void net_announce_init(struct net *n)
{
	n->announcing = (struct loop_watch){ .fd = -1, .fn = net_announce_again, .arg = n };
}
