/*
 * The QMP commands of migration. Names, units and fields are QEMU's; those that QEMU does not have
 * begin with x-godwit-. Runs on the thread of the machine's owner.
 */
#include "migrate/commands.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/migration.h"
#include "migrate/parameters.h"
#include "vmm/base/err.h"
#include "vmm/control/dispatch.h"
#include "vmm/memory.h"

static int migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	static const char *const unknown[] = { "blk", "inc", "resume", NULL };

	(void)result;
	for (const char *const *name = unknown; *name; name++)
		if (json_is_true(json_object_get(arguments, *name)))
			return err_set(e, "'%s' is not implemented", *name);
	return migration_start(context, json_string_value(json_object_get(arguments, "uri")), e);
}

static int migrate_cancel(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)arguments;
	(void)result;
	(void)e;
	migration_cancel(context, "");
	return 0;
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *ram(const struct migration_report *r)
{
	const struct stats *st = &r->stats;
	uint64_t ms = r->total_ms ? r->total_ms : 1, sent = st->data_bytes + st->meta_bytes;
	uint64_t precopy = st->precopy_bytes ? st->precopy_bytes : sent;
	json_t *o = json_object();

	json_object_set_new(o, "transferred", number(sent));
	json_object_set_new(o, "remaining", number(st->remaining_pages * PAGE_SIZE));
	json_object_set_new(o, "total", number(st->total_pages * PAGE_SIZE));
	json_object_set_new(o, "duplicate", number(st->zero_pages));
	json_object_set_new(o, "normal", number(st->normal_pages));
	json_object_set_new(o, "normal-bytes", number(st->normal_pages * PAGE_SIZE));
	json_object_set_new(o, "dirty-pages-rate", number(st->dirty_rate));
	json_object_set_new(o, "mbps", json_real((double)r->rate_bytes * 8 / 1e6));
	json_object_set_new(o, "dirty-sync-count", number(st->round));
	json_object_set_new(o, "pages-per-second", number(st->normal_pages * 1000 / ms));
	json_object_set_new(o, "page-size", number(PAGE_SIZE));
	json_object_set_new(o, "precopy-bytes", number(precopy));
	json_object_set_new(o, "downtime-bytes", number(sent - precopy));
	json_object_set_new(o, "postcopy-bytes", number(0));
	json_object_set_new(o, "postcopy-requests", number(0));
	return o;
}

static json_t *xbzrle_cache(const struct migration_report *r)
{
	const struct stats *st = &r->stats;
	double raw = (double)(st->xbzrle_pages * PAGE_SIZE);

	return json_pack("{s:o,s:o,s:o,s:o,s:f,s:f,s:o}", "cache-size",
			 number(r->parameters.xbzrle_cache_bytes), "bytes",
			 number(st->xbzrle_bytes), "pages", number(st->xbzrle_pages), "cache-miss",
			 number(st->xbzrle_misses), "cache-miss-rate",
			 st->xbzrle_pages + st->xbzrle_misses
				 ? (double)st->xbzrle_misses /
					   (double)(st->xbzrle_pages + st->xbzrle_misses)
				 : 0.0,
			 "encoding-rate", st->xbzrle_bytes ? raw / (double)st->xbzrle_bytes : 0.0,
			 "overflow", number(st->xbzrle_overflows));
}

/* The parts of the pause. */
static json_t *downtime_parts(const struct stats *st)
{
	return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "park-us", number(st->park_us),
			 "pages-us", number(st->pages_us), "sync-us", number(st->sync_us),
			 "states-us", number(st->states_us), "load-us", number(st->load_us),
			 "start-us", number(st->start_us), "total-us", number(st->downtime_us));
}

/* Bytes a second of each vCPU, in their order. */
static json_t *vcpu_dirty_rates(const struct migration_report *r)
{
	json_t *rates = json_array();

	for (unsigned int i = 0; i < r->n_vcpus && i < STATS_VCPUS_MAX; i++)
		json_array_append_new(rates, number(r->stats.vcpu_dirty_bytes[i]));
	return rates;
}

/* Rounded up, so that it is not 0 if the guest is slowed at all; and never 100. */
static uint64_t whole_percent(uint64_t permille)
{
	uint64_t percent = (permille + 9) / 10;

	return percent < 99 ? percent : 99;
}

static int query_migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_report r;
	json_t *o = json_object();

	(void)arguments;
	migration_query(context, &r);
	*result = o;
	if (!o)
		return err_set(e, "out of memory");
	if (r.status == PHASE_NONE)
		return 0;
	json_object_set_new(o, "status", json_string(phase_name(r.status)));
	json_object_set_new(o, "total-time", number(r.total_ms));
	json_object_set_new(o, "setup-time", number(r.stats.setup_us / 1000));
	json_object_set_new(o, "expected-downtime", number((r.stats.expected_us + 999) / 1000));
	if (r.status == PHASE_COMPLETED && r.stats.downtime_us)
		json_object_set_new(o, "downtime", number((r.stats.downtime_us + 999) / 1000));
	if (r.stats.throttle_permille)
		json_object_set_new(o, "cpu-throttle-percentage",
				    number(whole_percent(r.stats.throttle_permille)));
	if (r.stats.vcpu_limit_bytes)
		json_object_set_new(o, "x-godwit-vcpu-dirty-limit",
				    number(r.stats.vcpu_limit_bytes));
	if (r.vcpu_dirty_known)
		json_object_set_new(o, "x-godwit-vcpu-dirty-rates", vcpu_dirty_rates(&r));
	json_object_set_new(o, "ram", ram(&r));
	if (r.xbzrle)
		json_object_set_new(o, "xbzrle-cache", xbzrle_cache(&r));
	json_object_set_new(o, "x-godwit-downtime", downtime_parts(&r.stats));
	if (r.incoming)
		json_object_set_new(o, "x-godwit-incoming", json_true());
	else
		json_object_set_new(o, "x-godwit-uri", dispatch_text(r.uri));
	json_object_set_new(o, "x-godwit-downtime-limit", number(r.limit_ms));
	json_object_set_new(o, "x-godwit-max-bandwidth", number(r.parameters.bandwidth));
	if (r.policy[0])
		json_object_set_new(o, "x-godwit-policy", dispatch_text(r.policy));
	if (r.status == PHASE_UNDECIDED)
		json_object_set_new(o, "x-godwit-undecided", json_true());
	if (r.waiting[0])
		json_object_set_new(o, "x-godwit-waiting", dispatch_text(r.waiting));
	if (r.error[0])
		json_object_set_new(o, "error-desc", dispatch_text(r.error));
	return 0;
}

/* -- checks -- */

static int check(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)result;
	return migration_check(context, json_string_value(json_object_get(arguments, "uri")), e);
}

static json_t *prediction(const struct prediction *p)
{
	bool moves = p->answer == PREDICT_CONVERGES || p->answer == PREDICT_FORCED;
	json_t *o = json_pack("{s:s,s:b,s:o,s:o,s:o,s:o,s:o}", "answer",
			      predict_answer_name(p->answer), "moves", (int)moves, "sentence",
			      dispatch_text(p->sentence), "total-time", number(p->total_us / 1000),
			      "rounds", number(p->rounds), "transferred", number(p->sent_bytes),
			      "lost-time", number(p->lost_us / 1000));

	if (moves) {
		json_object_set_new(o, "total-time-least", number(p->least_us / 1000));
		json_object_set_new(o, "downtime", number((p->pause_us + 999) / 1000));
	}
	json_object_set_new(o, "cpu-throttle-percentage",
			    number(whole_percent(p->throttle_permille)));
	return o;
}

static json_t *sample(const struct check *c)
{
	json_t *looks = json_array();

	for (unsigned int i = 0; i < c->in.n_looks; i++)
		json_array_append_new(looks, json_pack("{s:o,s:o}", "us", number(c->in.look[i].us),
						       "bytes", number(c->in.look[i].bytes)));
	return json_pack("{s:o,s:o,s:o,s:o,s:o}", "touched-bytes", number(c->touched_bytes),
			 "zero-bytes", number(c->zero_bytes), "rate", number(c->link.rate_bytes),
			 "round-trip-us", number(c->link.round_trip_us), "dirty", looks);
}

static int query_check(void *context, json_t *arguments, json_t **result, struct err *e)
{
	static const char *const names[] = { [CHECK_NONE] = "none",
					     [CHECK_ACTIVE] = "active",
					     [CHECK_COMPLETED] = "completed",
					     [CHECK_FAILED] = "failed",
					     [CHECK_CANCELLED] = "cancelled" };
	struct check_report r;
	json_t *o;

	(void)arguments;
	migration_query_check(context, &r);
	o = *result = json_pack("{s:s}", "status", names[r.status]);
	if (!o)
		return err_set(e, "out of memory");
	if (r.status == CHECK_NONE)
		return 0;
	json_object_set_new(o, "uri", dispatch_text(r.uri));
	if (r.error[0])
		json_object_set_new(o, "error-desc", dispatch_text(r.error));
	if (r.status != CHECK_COMPLETED)
		return 0;
	json_object_set_new(o, "prediction", prediction(&r.check.prediction));
	json_object_set_new(o, "sample", sample(&r.check));
	json_object_set_new(o, "downtime-limit", number(r.check.prediction.limit_us / 1000));
	json_object_set_new(o, "compression-left-out", json_boolean(r.check.in.compression));
	return 0;
}

/* -- parameters and capabilities: the rows of parameters.h -- */

/* One more argument: capabilities, so that one command sets all or nothing. */
static const struct control_argument with_capabilities = { .name = "x-godwit-capabilities",
							   .type = CONTROL_ARRAY };

/* The arguments of migrate-set-parameters. */
static bool parameter_argument(size_t i, struct control_argument *out)
{
	const struct parameter *r;

	for (r = parameter_table; r->qmp; r++)
		if (!parameter_is_capability(r) && i-- == 0)
			break;
	if (!r->qmp) {
		*out = with_capabilities;
		return i == 0;
	}
	*out = (struct control_argument){ .name = r->qmp, .type = CONTROL_STRING };
	if (parameter_is_number(r)) {
		out->type = CONTROL_INTEGER;
		out->min = (int64_t)r->min;
		out->max = (int64_t)r->max;
	}
	return true;
}

static int set_capability(const char *name, bool state, struct migration_parameters *p,
			  struct err *e)
{
	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (parameter_is_capability(r) && !strcmp(r->qmp, name))
			return parameter_set_switch(r, p, state, e);
	return err_set(e, "'%.64s' is no capability", name);
}

/* Sets in *p the capabilities of a list. */
static int take_capabilities(struct migration *mig, const json_t *list,
			     struct migration_parameters *p, struct err *e)
{
	json_t *item, *name, *state;
	size_t i;

	if (json_array_size(list) > 0 && migration_under_way(mig))
		return err_set(e, "capabilities cannot change while a migration is under way");
	json_array_foreach(list, i, item)
	{
		name = json_object_get(item, "capability");
		state = json_object_get(item, "state");
		if (!json_is_string(name) || !json_is_boolean(state) || json_object_size(item) != 2)
			return err_set(e,
				       "'capabilities[%zu]' must be an object with a string "
				       "'capability' and a boolean 'state'",
				       i);
		if (set_capability(json_string_value(name), json_is_true(state), p, e))
			return -1;
	}
	return 0;
}

static int take_parameters(const json_t *arguments, struct migration_parameters *p, struct err *e)
{
	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		const json_t *v = json_object_get(arguments, r->qmp);

		if (!v || parameter_is_capability(r))
			continue;
		if (parameter_is_number(r)
			    ? parameter_set_number(r, p, (uint64_t)json_integer_value(v), e)
			    : parameter_set_text(r, p, json_string_value(v), e))
			return -1;
	}
	return 0;
}

/* All of them or, if one is refused, none. */
static int set_parameters(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;
	json_t *capabilities = json_object_get(arguments, with_capabilities.name);

	(void)result;
	migration_get_parameters(context, &p);
	if (take_parameters(arguments, &p, e))
		return -1;
	if (take_capabilities(context, capabilities, &p, e))
		return err_context(e, "'%s'", with_capabilities.name);
	if (json_object_get(arguments, "downtime-limit")) {
		p.downtime_sets++;
		p.downtime_chosen = true;
	} else if (json_object_get(arguments, "x-godwit-policy")) {
		p.downtime_chosen = false;
	}
	return migration_set_parameters(context, &p, e);
}

static int query_parameters(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;
	char *text;

	(void)arguments;
	migration_get_parameters(context, &p);
	*result = json_pack("{s:b}", "x-godwit-downtime-chosen", (int)p.downtime_chosen);
	for (const struct parameter *r = parameter_table; *result && r->qmp; r++) {
		if (parameter_is_capability(r))
			continue;
		if (parameter_is_number(r)) {
			json_object_set_new(*result, r->qmp, number(*parameter_number(r, &p)));
			continue;
		}
		text = parameter_text(r, &p);
		json_object_set_new(*result, r->qmp, dispatch_text(text ? text : ""));
		free(text);
	}
	return *result ? 0 : err_set(e, "out of memory");
}

static int set_capabilities(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;

	(void)result;
	migration_get_parameters(context, &p);
	if (take_capabilities(context, json_object_get(arguments, "capabilities"), &p, e))
		return -1;
	return migration_set_parameters(context, &p, e);
}

static int query_capabilities(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;

	(void)arguments;
	migration_get_parameters(context, &p);
	*result = json_array();
	for (const struct parameter *r = parameter_table; *result && r->qmp; r++) {
		bool on = r->kind == PARAMETER_SWITCH ? *parameter_switch(r, &p)
						      : r->kind == PARAMETER_ALWAYS_ON;

		if (parameter_is_capability(r))
			json_array_append_new(*result, json_pack("{s:s,s:b}", "capability", r->qmp,
								 "state", (int)on));
	}
	return *result ? 0 : err_set(e, "out of memory");
}

static int force_resume(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)arguments;
	(void)result;
	return migration_force_resume(context, e);
}

static const struct control_argument migrate_arguments[] = {
	{ .name = "uri", .type = CONTROL_STRING, .required = true },
	{ .name = "detach", .type = CONTROL_BOOLEAN }, /* QEMU has it, and ignores it as well */
	{ .name = "blk", .type = CONTROL_BOOLEAN },
	{ .name = "inc", .type = CONTROL_BOOLEAN },
	{ .name = "resume", .type = CONTROL_BOOLEAN },
	{ .name = NULL },
};

static const struct control_argument check_arguments[] = {
	{ .name = "uri", .type = CONTROL_STRING, .required = true },
	{ .name = NULL },
};

static const struct control_argument capability_arguments[] = {
	{ .name = "capabilities", .type = CONTROL_ARRAY, .required = true },
	{ .name = NULL },
};

const struct control_command migrate_commands[] = {
	{ .name = "migrate", .arguments = migrate_arguments, .run = migrate },
	{ .name = "migrate_cancel", .run = migrate_cancel },
	{ .name = "query-migrate", .run = query_migrate },
	{ .name = "migrate-set-parameters", .argument = parameter_argument, .run = set_parameters },
	{ .name = "query-migrate-parameters", .run = query_parameters },
	{ .name = "migrate-set-capabilities",
	  .arguments = capability_arguments,
	  .run = set_capabilities },
	{ .name = "query-migrate-capabilities", .run = query_capabilities },
	{ .name = "x-godwit-force-resume", .run = force_resume },
	{ .name = "x-godwit-check", .arguments = check_arguments, .run = check },
	{ .name = "x-godwit-query-check", .run = query_check },
	{ .name = NULL },
};
