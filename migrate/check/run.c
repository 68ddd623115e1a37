/*
 * A check of a migration to come (check.h), on the thread that a migration would have.
 */
#include <stdio.h>
#include <string.h>

#include "migrate/channel/channel.h"
#include "migrate/migration_internal.h"
#include "migrate/policy/expect.h"

struct check_news {
	struct migration *mig;
	enum check_status status;
	struct err *e;
};

static void tell_check(void *arg)
{
	struct check_news *n = arg;
	struct migration *mig = n->mig;

	pthread_mutex_lock(&mig->lock);
	mig->check_status = n->status;
	if (n->status == CHECK_FAILED && !mig->check_cancelled)
		mig->check_error = *n->e;
	else if (n->status == CHECK_FAILED && !mig->check_error.text[0])
		mig->check_status = CHECK_CANCELLED; /* by a person */
	pthread_mutex_unlock(&mig->lock);
}

static void *check_thread(void *arg)
{
	struct migration *mig = arg;
	const struct migration_parameters *p = &mig->checked;
	struct check *c = &mig->check;
	struct err e = { "" };
	struct check_news n = { mig, CHECK_FAILED, &e };

	*c = (struct check){
		.guest = &mig->guest.guest,
		.stop_fd = mig->stop_fd,
		.bandwidth = p->bandwidth,
		.in = { .limit_us = p->downtime_ms * 1000,
			.fixed_us = EXPECT_UNKNOWN_US,
			.throttle = parameters_may_slow(p),
			.compression = parameters_may_use_xbzrle(p) ||
				       p->compression != CODEC_PLAIN,
			.by_limit = p->dirty_limit,
			.bounds = parameters_throttle_bounds(p),
			.policy = p->has_policy ? &p->policy : NULL,
			.timeout = p->timeout,
			.timeout_action = p->timeout_action },
	};
	/* Who writes is not known yet: each of them may dirty that much in any case. */
	c->in.bounds.least_bytes = parameters_least_dirty_bytes(p) * mig->guest.guest.n_vcpus;
	c->channel = migration_connect(mig, &mig->check_uri, p->bind, &e);
	if (c->channel && check_run(c, &e) == 0)
		n.status = CHECK_COMPLETED;
	channel_close(c->channel);
	migration_call_owner(mig, tell_check, &n);
	return NULL;
}

int migration_check(struct migration *mig, const char *uri, struct err *e)
{
	struct uri parsed;

	if (uri_parse(uri, &parsed, e) || migration_check_machine(mig, e))
		return -1;
	if (parsed.kind == URI_FILE)
		return err_set(e,
			       "%s cannot be checked: nobody there tells how fast it takes in what "
			       "is written, and writing to a file stops the guest",
			       uri);
	if (parsed.kind == URI_FD)
		return err_set(e,
			       "%s cannot be checked: it is one connection, which would be "
			       "used up",
			       uri);
	if (migration_check_parameters(mig, e))
		return -1;
	migration_end_before(mig);
	mig->check_uri = parsed;
	mig->checked = parameters_effective(&mig->parameters);
	mig->check_status = CHECK_ACTIVE;
	mig->check_cancelled = false;
	mig->check_error.text[0] = 0;
	if (migration_start_thread(mig, check_thread, e)) {
		mig->check_status = CHECK_NONE;
		return -1;
	}
	return 0;
}

void migration_query_check(struct migration *mig, struct check_report *out)
{
	*out = (struct check_report){ 0 };
	pthread_mutex_lock(&mig->lock);
	out->status = mig->check_status;
	memcpy(out->error, mig->check_error.text, sizeof(out->error));
	/* Its thread does not write to it any more. */
	if (out->status == CHECK_COMPLETED)
		out->check = mig->check;
	pthread_mutex_unlock(&mig->lock);
	memcpy(out->uri, mig->check_uri.text, sizeof(out->uri));
}
