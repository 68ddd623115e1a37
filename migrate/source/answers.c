/*
 * What the destination says: see source_internal.h. Runs on the migration's thread.
 */
#include "migrate/source/source_internal.h"

#include "migrate/channel/channel.h"
#include "migrate/source/source.h"
#include "vmm/base/err.h"

/* The next record from the destination, whole and within that time. */
int answers_read(struct source *s, struct reader *r, struct record *rec, int timeout_ms,
		 struct err *e)
{
	int left_ms = handover_left_ms(s), rc;

	channel_set_deadline(s->channel,
			     left_ms >= 0 && left_ms < timeout_ms ? left_ms : timeout_ms);
	rc = channel_wait(s->channel, -1, e);
	if (rc == 0 && handover_check_pause(s, e) == 0)
		rc = err_set(e, "%s: no word from the destination within %d s", s->channel->name,
			     timeout_ms / 1000);
	else if (rc == 0)
		rc = -1;
	else if (rc > 0)
		rc = reader_record(r, rec, e);
	channel_set_deadline(s->channel, handover_left_ms(s));
	return rc;
}

/* Sets the error when the destination says in `rec` that it cannot go on. */
bool answers_is_refusal(struct source *s, const struct record *rec, struct err *e)
{
	char text[400];

	if (rec->type != RECORD_FAILED && (rec->type != RECORD_CHECKED || !checked_refuses(rec)))
		return false;
	record_text(rec, text, sizeof(text));
	s->answered = true;
	err_set(e,
		rec->type == RECORD_CHECKED ? "the destination refuses: %s"
					    : "the destination gave up: %s",
		text);
	return true;
}

/* The next record from the destination, which must be of that type. */
int answers_expect(struct source *s, struct reader *r, enum record_type type, int timeout_ms,
		   struct record *rec, struct err *e)
{
	if (answers_read(s, r, rec, timeout_ms, e))
		return err_context(e, "waiting for %s", record_name((uint16_t)type));
	if (answers_is_refusal(s, rec, e))
		return -1;
	if (rec->type != type)
		return err_set(e, "%s: a %s record where %s was expected", s->channel->name,
			       record_name(rec->type), record_name((uint16_t)type));
	return 0;
}

/* It may have died while nothing was asked of it, or changed its mind: as long as GO is not sent,
 * that does no harm. */
int answers_check(struct source *s, struct reader *r, struct err *e)
{
	struct record rec;
	int rc = channel_wait(s->channel, 0, e);

	if (rc <= 0)
		return rc;
	if (answers_read(s, r, &rec, s->running_ms, e) || answers_is_refusal(s, &rec, e))
		return -1;
	return err_set(e, "%s: a %s record that was not asked for", s->channel->name,
		       record_name(rec.type));
}
