/*
 * What becomes of a request that the host could not do: the guest gets an I/O error, or the request
 * is kept and the guest is stopped until a person resumes it (--disk ...,on-error=). Runs under the
 * device's lock.
 *
 * The invariant: a kept request is one that the driver has given and not got back. Only its head is
 * kept, in order; it is begun anew, from its descriptors, when the driver's queue works again, here
 * or where the guest was moved to. So there is one way for it, whatever happened meanwhile. A reset
 * of the device forgets it, as the driver does.
 */
#include "devices/virtio/blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"

/* Errors that the guest gets are told to the machine no more often: it can make them at will. */
#define TELL_US 1000000

static const char *const action_names[] = {
	[BLK_ON_NO_SPACE] = "enospc",
	[BLK_STOP] = "stop",
	[BLK_REPORT] = "report",
};

int blk_on_error_parse(struct blk *b, const char *text, struct err *e)
{
	for (unsigned int i = 0; i < sizeof(action_names) / sizeof(action_names[0]); i++)
		if (!strcmp(text, action_names[i])) {
			b->on_error = (enum blk_on_error)i;
			return 0;
		}
	return err_set(e, "on-error is '%.20s' (expected enospc, stop or report)", text);
}

static const char *doing(const struct blk_request *r)
{
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
		return "reading";
	case VIRTIO_BLK_T_OUT:
		return "writing";
	case VIRTIO_BLK_T_FLUSH:
		return "flushing";
	case VIRTIO_BLK_T_DISCARD:
		return "discarding";
	default:
		return "zeroing";
	}
}

/*
 * A flush is never tried again: the kernel forgets what it could not write, so a second one would
 * succeed although data are lost.
 */
static bool can_be_repeated(const struct blk_request *r)
{
	return r->type == VIRTIO_BLK_T_OUT || r->type == VIRTIO_BLK_T_DISCARD ||
	       r->type == VIRTIO_BLK_T_WRITE_ZEROES;
}

static void tell(struct blk *b, const struct device_io_error *x)
{
	const struct device_env *env = b->v.dev.env;

	if (!x->stop && b->told_us && clock_us() - b->told_us < TELL_US)
		return;
	if (!x->stop)
		b->told_us = clock_us();
	if (env->io_error)
		env->io_error(env->machine, &b->v.dev, x);
}

enum blk_next blk_failed(struct blk *b, const struct blk_request *r, int errnum, const char *why,
			 uint8_t *status)
{
	struct device_io_error x = { .write = r->type != VIRTIO_BLK_T_IN,
				     .no_space = errnum == ENOSPC || errnum == EDQUOT };

	*status = VIRTIO_BLK_S_IOERR;
	/* A broken device does nothing more for the driver until it is reset. */
	if (b->v.st.status & VIRTIO_STATUS_NEEDS_RESET)
		return BLK_DONE;
	why = why ? why : strerror(errnum);
	x.stop = can_be_repeated(r) &&
		 (b->on_error == BLK_STOP || (b->on_error == BLK_ON_NO_SPACE && x.no_space));
	snprintf(x.reason, sizeof(x.reason), "%s", why);
	/* A full or broken disk would fill the log as fast as the guest tries. A stop is said each
	 * time: only a person lets the guest try again. */
	if (x.stop ? !blk_is_stalled(b) : !b->error_logged)
		log_warn("%s: %s %" PRIu64 " bytes at byte %" PRIu64 " of %s: %s; the guest %s",
			 b->disk.name, doing(r), r->bytes - r->done, r->offset + r->done,
			 b->disk.path, why,
			 x.stop ? "is stopped until `godwit resume`, which tries again"
				: "gets an I/O error (said once)");
	if (!x.stop)
		b->error_logged = true;
	tell(b, &x);
	return x.stop ? BLK_KEEP : BLK_DONE;
}

void blk_keep(struct blk *b, uint16_t head)
{
	b->of_head[head] = BLK_KEPT;
	b->kept[b->n_kept++] = head;
}

uint16_t blk_unkeep(struct blk *b)
{
	uint16_t head = b->kept[0];

	b->n_kept--;
	b->n_retry--;
	memmove(b->kept, b->kept + 1, b->n_kept * sizeof(b->kept[0]));
	b->of_head[head] = 0;
	return head;
}

void blk_forget_kept(struct blk *b)
{
	for (unsigned int i = 0; i < b->n_kept; i++)
		b->of_head[b->kept[i]] = 0;
	b->n_kept = b->n_retry = 0;
}

int blk_kept_check(const struct blk_state *st, struct err *e)
{
	const struct queue_state *q = &st->v.queues[0];
	bool seen[QUEUE_SIZE_MAX] = { false };

	if (!st->n_kept)
		return 0;
	if (!st->v.n_queues || !q->ready || !(st->v.status & VIRTIO_STATUS_DRIVER_OK))
		return err_set(e, "%" PRIu32 " kept requests of a queue that does not work",
			       st->n_kept);
	for (uint32_t i = 0; i < st->n_kept; i++) {
		uint32_t head = st->kept[i];

		if (head >= q->size || seen[head])
			return err_set(e,
				       "a kept request begins at descriptor %" PRIu32
				       " (expected different ones below %u)",
				       head, q->size);
		seen[head] = true;
	}
	return 0;
}

void blk_kept_save(const struct blk *b, struct blk_state *st)
{
	st->n_kept = b->n_kept;
	for (unsigned int i = 0; i < b->n_kept; i++)
		st->kept[i] = b->kept[i];
}

void blk_kept_load(struct blk *b, const struct blk_state *st)
{
	blk_forget_kept(b);
	for (uint32_t i = 0; i < st->n_kept; i++)
		blk_keep(b, (uint16_t)st->kept[i]);
}
