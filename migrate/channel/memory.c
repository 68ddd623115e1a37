/*
 * A stream in memory: see channel.h. For tests and the fuzzer: reads come from the bytes given,
 * which are not copied, writes go into a buffer of its own. Nobody ever waits.
 */
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "vmm/base/err.h"

#define WRITTEN_MAX (256u << 20)

struct memory_channel {
	struct channel ch; /* first */
	const uint8_t *bytes;
	size_t left;
	uint8_t *written;
	size_t written_size;
};

static int memory_reserve(struct memory_channel *m, size_t more, struct err *e)
{
	size_t needed = (size_t)m->ch.bytes + more,
	       size = m->written_size ? m->written_size : 65536;
	uint8_t *bigger;

	if (needed > WRITTEN_MAX)
		return err_set(e, "more than %u bytes", WRITTEN_MAX);
	while (size < needed)
		size *= 2;
	if (size == m->written_size)
		return 0;
	bigger = realloc(m->written, size);
	if (!bigger)
		return err_set(e, "out of memory");
	m->written = bigger;
	m->written_size = size;
	return 0;
}

static int memory_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	struct memory_channel *m = (struct memory_channel *)ch;

	for (; n > 0; n--, iov++) {
		if (memory_reserve(m, iov->iov_len, e))
			return -1;
		if (iov->iov_len)
			memcpy(m->written + ch->bytes, iov->iov_base, iov->iov_len);
		ch->bytes += iov->iov_len;
	}
	return 0;
}

static int memory_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	struct memory_channel *m = (struct memory_channel *)ch;

	if (len > m->left)
		return err_set(e, "the stream ends early");
	if (len)
		memcpy(buf, m->bytes, len);
	m->bytes += len;
	m->left -= len;
	return 0;
}

static int memory_at_end(struct channel *ch, struct err *e)
{
	(void)e;
	return ((struct memory_channel *)ch)->left == 0;
}

/* There is something, or nothing will come any more: nobody waits. */
static int memory_wait(struct channel *ch, int timeout_ms, struct err *e)
{
	(void)timeout_ms;
	(void)e;
	return ((struct memory_channel *)ch)->left > 0;
}

static void memory_close(struct channel *ch)
{
	struct memory_channel *m = (struct memory_channel *)ch;

	free(m->written);
	free(m);
}

static const struct channel_ops memory_ops = {
	.write = memory_write,
	.read = memory_read,
	.at_end = memory_at_end,
	.wait = memory_wait,
	.close = memory_close,
};

int memory_channel(struct channel **out, const void *bytes, size_t len, struct err *e)
{
	struct memory_channel *m = calloc(1, sizeof(*m));

	if (!m)
		return err_set(e, "out of memory");
	m->ch.ops = &memory_ops;
	memcpy(m->ch.name, "memory", sizeof("memory"));
	m->bytes = bytes;
	m->left = len;
	*out = &m->ch;
	return 0;
}

const uint8_t *memory_channel_written(const struct channel *ch)
{
	return ((const struct memory_channel *)ch)->written;
}
