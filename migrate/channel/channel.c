/*
 * What all kinds of channels share: see channel.h. One thread at a time.
 */
#include "migrate/channel/channel.h"

#include "vmm/base/clock.h"
#include "vmm/base/err.h"

int channel_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	return ch->ops->write(ch, iov, n, e) ? err_context(e, "%s", ch->name) : 0;
}

int channel_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	return ch->ops->read(ch, buf, len, e) ? err_context(e, "%s", ch->name) : 0;
}

int channel_expect_end(struct channel *ch, struct err *e)
{
	int rc = ch->ops->at_end(ch, e);

	if (rc < 0)
		return err_context(e, "%s", ch->name);
	return rc ? 0 : err_set(e, "%s: something follows the end of the stream", ch->name);
}

int channel_wait(struct channel *ch, int timeout_ms, struct err *e)
{
	int rc = ch->ops->wait ? ch->ops->wait(ch, timeout_ms, e) : 1;

	return rc < 0 ? err_context(e, "%s", ch->name) : rc;
}

void channel_set_deadline(struct channel *ch, int timeout_ms)
{
	uint64_t at = timeout_ms < 0 ? 0 : clock_us() + (uint64_t)timeout_ms * 1000;

	__atomic_store_n(&ch->deadline_us, at, __ATOMIC_RELAXED);
}

void channel_set_stop(struct channel *ch, int stop_fd)
{
	if (ch->ops->set_stop)
		ch->ops->set_stop(ch, stop_fd);
}

void channel_read_apart(struct channel *ch)
{
	ch->read_apart = true;
}

void channel_shutdown(struct channel *ch)
{
	if (ch->ops->shutdown)
		ch->ops->shutdown(ch, true);
}

void channel_end_reads(struct channel *ch)
{
	if (ch->ops->shutdown)
		ch->ops->shutdown(ch, false);
}

int channel_finish(struct channel *ch, struct err *e)
{
	if (ch->ops->finish && ch->ops->finish(ch, e))
		return err_context(e, "%s", ch->name);
	return 0;
}

void channel_close(struct channel *ch)
{
	if (ch)
		ch->ops->close(ch);
}
