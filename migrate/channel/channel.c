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
	if (ch->ops->read(ch, buf, len, e))
		return err_context(e, "%s", ch->name);
	ch->bytes += len;
	return 0;
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
