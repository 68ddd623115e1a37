/*
 * Records onto a channel: see record.h. One thread at a time.
 */
#include <string.h>
#include <zlib.h>

#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define DATA_PIECES_MAX (PAGES_RUNS_MAX)

static const uint8_t zeros[PAGE_SIZE];

/* How many zeros bring the data to a multiple of the page size. */
static uint32_t padding(const struct writer *w, size_t body_bytes)
{
	uint64_t at = w->channel->bytes + RECORD_HEAD_BYTES + body_bytes;

	return w->channel->page_aligned ? (uint32_t)(-at % PAGE_SIZE) : 0;
}

int writer_record(struct writer *w, enum record_type type, const void *body, size_t body_bytes,
		  struct iovec *data, int n_data, struct err *e)
{
	return writer_flagged(w, type, 0, body, body_bytes, data, n_data, e);
}

int writer_flagged(struct writer *w, enum record_type type, uint16_t flags, const void *body,
		   size_t body_bytes, struct iovec *data, int n_data, struct err *e)
{
	uint8_t head[RECORD_HEAD_BYTES] = { 0 };
	struct iovec iov[3 + DATA_PIECES_MAX];
	uint64_t data_bytes = 0;
	uint32_t pad = n_data ? padding(w, body_bytes) : 0;
	uLong crc;
	int i;

	if (w->broken)
		return err_set(e, "%s: nothing can be sent any more", w->channel->name);
	for (i = 0; i < n_data; i++)
		data_bytes += data[i].iov_len;
	if (body_bytes > record_body_max((uint16_t)type, w->n_vcpus) ||
	    data_bytes > RECORD_DATA_MAX || n_data > (int)DATA_PIECES_MAX)
		return err_set(e, "a %s record of %zu bytes is more than the stream allows",
			       record_name((uint16_t)type), body_bytes);
	head[0] = (uint8_t)type;
	head[1] = (uint8_t)(type >> 8);
	head[2] = (uint8_t)flags;
	head[3] = (uint8_t)(flags >> 8);
	put_u64(head + 8, w->sequence);
	put_u32(head + 16, (uint32_t)body_bytes);
	put_u32(head + 20, pad);
	put_u64(head + 24, data_bytes);
	crc = crc32(0, head, sizeof(head));
	if (body_bytes) /* zlib starts anew for NULL */
		crc = crc32(crc, body, (uInt)body_bytes);
	put_u32(head + 4, (uint32_t)crc);

	iov[0] = (struct iovec){ head, sizeof(head) };
	iov[1] = (struct iovec){ (void *)(uintptr_t)body, body_bytes };
	iov[2] = (struct iovec){ (void *)(uintptr_t)zeros, pad };
	if (n_data)
		memcpy(iov + 3, data, (size_t)n_data * sizeof(data[0]));
	if (channel_write(w->channel, iov, 3 + n_data, e)) {
		w->broken = true;
		return -1;
	}
	w->sequence++;
	return 0;
}

int writer_text(struct writer *w, enum record_type type, const char *text, struct err *e)
{
	if (!*text)
		text = "it does not say why";
	return writer_record(w, type, text, strnlen(text, RECORD_TEXT_MAX), NULL, 0, e);
}
