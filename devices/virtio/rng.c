/*
 * The virtio entropy device (virtio 1.2, section 5.4): one queue of buffers to be filled with
 * random bytes. Runs on the I/O thread. The invariant: a turn costs at most TURN_BYTES of the
 * host's random numbers, however large the buffers and however many the guest offers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "devices/models.h"
#include "devices/virtio/device.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"

#define RNG_DEVICE_ID 4

#define TURN_BYTES (64u << 10)
#define STEP_BYTES 1024u

#define RNG_FEATURES                                                       \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | \
	 VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC))

struct rng {
	struct virtio_device v; /* first */
	struct queue_chain chain;
};

/* Random bytes into the chain, at most `budget`; the number of them, 0 when the host has none. */
static uint32_t fill(struct rng *r, uint32_t budget)
{
	uint64_t want = r->chain.in_bytes < budget ? r->chain.in_bytes : budget, done = 0;
	uint8_t bytes[STEP_BYTES];

	while (done < want) {
		size_t n = want - done < sizeof(bytes) ? (size_t)(want - done) : sizeof(bytes);
		ssize_t got = getrandom(bytes, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		if (queue_chain_write(&r->v.queues[0], &r->chain, done, bytes, (size_t)got) !=
		    (size_t)got)
			break;
		done += (uint64_t)got;
	}
	explicit_bzero(bytes, sizeof(bytes));
	return (uint32_t)done;
}

static enum virtio_took rng_take(struct virtio_device *v, unsigned int q, struct queue_chain *c,
				 uint32_t *written, void *turn)
{
	uint32_t *budget = turn;

	(void)q;
	if (!c->n_in || c->n_out) {
		virtio_fail(v, "a request for random bytes %s",
			    c->n_out ? "brings bytes of its own" : "has no room for them");
		return VIRTIO_BROKEN;
	}
	*written = fill((struct rng *)v, *budget);
	/* A chain costs something even when it holds one byte. */
	*budget -= *written + STEP_BYTES < *budget ? *written + STEP_BYTES : *budget;
	return *budget ? VIRTIO_TOOK : VIRTIO_TOOK_LAST;
}

static void rng_ring(struct virtio_device *v, unsigned int index)
{
	uint32_t budget = TURN_BYTES;

	virtio_drain(v, index, NULL, &((struct rng *)v)->chain, rng_take, &budget);
}

static const struct virtio_ops rng_ops = {
	.device_id = RNG_DEVICE_ID,
	.known_features = RNG_FEATURES,
	.ring = rng_ring,
};

static int rng_probe(struct tree *t, const char *path, struct err *e)
{
	return tree_set_u64(t, path, "features", RNG_FEATURES, e);
}

static int rng_create(const struct device_env *env, const struct tree *t, const char *path,
		      struct device **out, struct err *e)
{
	struct rng *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(e, "%s: out of memory", path);
	if (virtio_init(&r->v, &virtio_rng_model, &rng_ops, 1, env, t, path, e) < 0) {
		free(r);
		return -1;
	}
	*out = &r->v.dev;
	return 0;
}

static void rng_destroy(struct device *d)
{
	struct rng *r = (struct rng *)d;

	virtio_destroy(&r->v);
	free(r);
}

const struct device_model virtio_rng_model = {
	.name = "virtio-rng",
	.state = &virtio_plain_state,
	.probe = rng_probe,
	.create = rng_create,
	.destroy = rng_destroy,
	.activate = virtio_activate,
	.quiesce = virtio_quiesce,
	.save = virtio_plain_save,
	.fits = virtio_plain_fits,
	.load = virtio_plain_load,
};
