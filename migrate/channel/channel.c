/*
 * What all kinds of channels share: see channel.h. One thread at a time.
 */
#include "migrate/channel/channel.h"

#include "vmm/base/err.h"

int channel_write(struct channel *ch, struct iovec *iov, int n, struct err *e)
{
	uint64_t bytes = 0;
	int i;

	for (i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	if (ch->ops->write(ch, iov, n, e))
		return err_context(e, "%s", ch->name);
	ch->bytes += bytes;
	return 0;
}

int channel_read(struct channel *ch, void *buf, size_t len, struct err *e)
{
	return ch->ops->read(ch, buf, len, e) ? err_context(e, "%s", ch->name) : 0;
}

int channel_wait(struct channel *ch, int timeout_ms, struct err *e)
{
	int rc = ch->ops->wait ? ch->ops->wait(ch, timeout_ms, e) : 1;

	return rc < 0 ? err_context(e, "%s", ch->name) : rc;
}

void channel_set_stop(struct channel *ch, int stop_fd)
{
	if (ch->ops->set_stop)
		ch->ops->set_stop(ch, stop_fd);
}

void channel_shutdown(struct channel *ch)
{
	if (ch->ops->shutdown)
		ch->ops->shutdown(ch);
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
