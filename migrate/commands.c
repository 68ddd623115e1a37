/*
 * The control commands of migration: see commands.h. Names and fields are QEMU's. Runs on the
 * thread of the machine's owner.
 */
#include "migrate/commands.h"

#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/codec/page_cache.h"
#include "migrate/handover.h"
#include "migrate/migration.h"
#include "migrate/policy/policy_json.h"
#include "vmm/base/err.h"
#include "vmm/control/dispatch.h"
#include "vmm/memory.h"

static int migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	static const char *const unknown[] = { "blk", "inc", "resume", NULL };

	(void)result;
	for (const char *const *name = unknown; *name; name++)
		if (json_is_true(json_object_get(arguments, *name)))
			return err_set(e, "'%s' is not there yet", *name);
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

/* Where the milliseconds of the pause went, in microseconds. */
static json_t *downtime_parts(const struct stats *st)
{
	return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "park-us", number(st->park_us),
			 "pages-us", number(st->pages_us), "sync-us", number(st->sync_us),
			 "states-us", number(st->states_us), "load-us", number(st->load_us),
			 "start-us", number(st->start_us), "total-us", number(st->downtime_us));
}

/* Bytes a second, by the numbers of the vCPUs. */
static json_t *vcpu_dirty_rates(const struct migration_report *r)
{
	json_t *rates = json_array();

	for (unsigned int i = 0; i < r->n_vcpus && i < STATS_VCPUS_MAX; i++)
		json_array_append_new(rates, number(r->stats.vcpu_dirty_bytes[i]));
	return rates;
}

/* Never 0 of a guest that is slowed, and never 100, as it does not stand still. */
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
	if (r.status == MIGRATION_NONE)
		return 0;
	json_object_set_new(o, "status", json_string(migration_status_name(r.status)));
	json_object_set_new(o, "total-time", number(r.total_ms));
	json_object_set_new(o, "setup-time", number(r.stats.setup_us / 1000));
	json_object_set_new(o, "expected-downtime", number((r.stats.expected_us + 999) / 1000));
	if (r.status == MIGRATION_COMPLETED && r.stats.downtime_us)
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
	if (r.status == MIGRATION_UNDECIDED)
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

/* QEMU's parameters that exist here, and their ranges. */
static const struct control_argument parameter_arguments[] = {
	{ .name = "max-bandwidth", .type = CONTROL_INTEGER, .min = 0, .max = INT64_MAX },
	{ .name = "downtime-limit", .type = CONTROL_INTEGER, .min = 0, .max = 2000000 },
	{ .name = "multifd-channels", .type = CONTROL_INTEGER, .min = 1, .max = 16 },
	{ .name = "cpu-throttle-initial", .type = CONTROL_INTEGER, .min = 0, .max = 99 },
	{ .name = "cpu-throttle-increment", .type = CONTROL_INTEGER, .min = 0, .max = 99 },
	{ .name = "max-cpu-throttle", .type = CONTROL_INTEGER, .min = 0, .max = 99 },
	/* MiB a second, as QEMU's. */
	{ .name = "vcpu-dirty-limit", .type = CONTROL_INTEGER, .min = 1, .max = 1 << 20 },
	{ .name = "xbzrle-cache-size",
	  .type = CONTROL_INTEGER,
	  .min = PAGE_CACHE_BYTES_MIN,
	  .max = INT64_MAX },
	{ .name = "multifd-compression", .type = CONTROL_STRING },
	{ .name = "multifd-zlib-level", .type = CONTROL_INTEGER, .min = 1, .max = 9 },
	{ .name = "multifd-zstd-level", .type = CONTROL_INTEGER, .min = 1, .max = 20 },
	{ .name = "announce-initial", .type = CONTROL_INTEGER, .min = 0, .max = 100000 },
	{ .name = "announce-max", .type = CONTROL_INTEGER, .min = 0, .max = 100000 },
	{ .name = "announce-rounds", .type = CONTROL_INTEGER, .min = 0, .max = 1000 },
	{ .name = "announce-step", .type = CONTROL_INTEGER, .min = 1, .max = 10000 },
	{ .name = "x-godwit-timeout", .type = CONTROL_INTEGER, .min = 0, .max = 31536000 },
	{ .name = "x-godwit-timeout-per-gib", .type = CONTROL_INTEGER, .min = 0, .max = 31536000 },
	{ .name = "x-godwit-progress-timeout", .type = CONTROL_INTEGER, .min = 0, .max = 31536000 },
	/* ms; 0: it follows from the downtime limit (handover.h). */
	{ .name = "x-godwit-switchover-timeout",
	  .type = CONTROL_INTEGER,
	  .min = 0,
	  .max = HANDOVER_CHOSEN_MAX_MS },
	{ .name = "x-godwit-timeout-action", .type = CONTROL_STRING },
	{ .name = "x-godwit-policy", .type = CONTROL_STRING },
	{ .name = "x-godwit-bind", .type = CONTROL_STRING },
	/* As migrate-set-capabilities has them: so that all is set, or nothing. */
	{ .name = "x-godwit-capabilities", .type = CONTROL_ARRAY },
	{ .name = NULL },
};

/* "": none. */
static int set_policy(struct migration_parameters *p, const char *text, struct err *e)
{
	p->has_policy = text[0];
	if (!text[0])
		return 0;
	if (policy_from_text(text, &p->policy, e))
		return err_context(e, "'x-godwit-policy'");
	if (policy_has(&p->policy, POLICY_POSTCOPY))
		return err_set(e,
			       "'x-godwit-policy': the policy '%s' goes over to post-copy: "
			       "post-copy is not there yet",
			       p->policy.name);
	return 0;
}

static int set_timeout_action(struct migration_parameters *p, const char *text, struct err *e)
{
	int action = timeout_action_find(text);

	if (action < 0)
		return err_set(e,
			       "'x-godwit-timeout-action' must be abort, force or post-copy, not "
			       "'%.64s'",
			       text);
	if (action == TIMEOUT_POSTCOPY)
		return err_set(e, "'x-godwit-timeout-action': post-copy is not there yet");
	p->timeout_action = (enum timeout_action)action;
	return 0;
}

/* The parameters that are numbers, and no more. */
static const struct number_parameter {
	const char *name;
	size_t at; /* of a uint64_t in struct migration_parameters */
} number_parameters[] = {
#define NUMBER(name, member)                                        \
	{                                                           \
		name, offsetof(struct migration_parameters, member) \
	}
	NUMBER("max-bandwidth", bandwidth),
	NUMBER("downtime-limit", downtime_ms),
	NUMBER("multifd-channels", channels),
	NUMBER("cpu-throttle-initial", throttle_initial),
	NUMBER("cpu-throttle-increment", throttle_increment),
	NUMBER("max-cpu-throttle", throttle_max),
	NUMBER("vcpu-dirty-limit", vcpu_dirty_limit),
	NUMBER("xbzrle-cache-size", xbzrle_cache_bytes),
	NUMBER("multifd-zlib-level", zlib_level),
	NUMBER("multifd-zstd-level", zstd_level),
	NUMBER("announce-initial", announce_initial),
	NUMBER("announce-max", announce_max),
	NUMBER("announce-rounds", announce_rounds),
	NUMBER("announce-step", announce_step),
	NUMBER("x-godwit-timeout", timeout.total_s),
	NUMBER("x-godwit-timeout-per-gib", timeout.per_gib_s),
	NUMBER("x-godwit-progress-timeout", timeout.progress_s),
	NUMBER("x-godwit-switchover-timeout", switchover_ms),
#undef NUMBER
};

#define N_NUMBERS (sizeof(number_parameters) / sizeof(number_parameters[0]))

static uint64_t *number_of(struct migration_parameters *p, size_t i)
{
	return (uint64_t *)((char *)p + number_parameters[i].at);
}

static const char *compression_name(const struct migration_parameters *p)
{
	return p->compression == CODEC_PLAIN ? "none" : pages_codec_name(p->compression);
}

static int set_compression(struct migration_parameters *p, const char *text, struct err *e)
{
	if (!strcmp(text, "none"))
		p->compression = CODEC_PLAIN;
	else if (!strcmp(text, pages_codec_name(CODEC_ZLIB)))
		p->compression = CODEC_ZLIB;
	else if (!strcmp(text, pages_codec_name(CODEC_ZSTD)))
		p->compression = CODEC_ZSTD;
	else
		return err_set(e, "'multifd-compression' must be none, zlib or zstd, not '%.64s'",
			       text);
	return 0;
}

/* -- capabilities -- */

enum capability_kind { CAPABILITY_CHOICE, CAPABILITY_ALWAYS_ON, CAPABILITY_NOT_THERE };

#define CHOICE(member) CAPABILITY_CHOICE, offsetof(struct migration_parameters, member)

static const struct capability {
	const char *name;
	enum capability_kind kind;
	size_t choice; /* of a bool in struct migration_parameters */
} capabilities[] = {
	{ "xbzrle", CHOICE(xbzrle) },
	{ "auto-converge", CHOICE(auto_converge) },
	{ "postcopy-ram", CAPABILITY_NOT_THERE, 0 },
	{ "multifd", CHOICE(multifd) },
	{ "events", CAPABILITY_ALWAYS_ON, 0 },
	{ "pause-before-switchover", CAPABILITY_NOT_THERE, 0 },
	{ "dirty-limit", CHOICE(dirty_limit) },
	{ "return-path", CAPABILITY_ALWAYS_ON, 0 },
};

#define N_CAPABILITIES (sizeof(capabilities) / sizeof(capabilities[0]))

static bool *choice(struct migration_parameters *p, const struct capability *c)
{
	return (bool *)((char *)p + c->choice);
}

static int set_capability(const char *name, bool state, struct migration_parameters *p,
			  struct err *e)
{
	for (size_t i = 0; i < N_CAPABILITIES; i++) {
		if (strcmp(capabilities[i].name, name))
			continue;
		if (capabilities[i].kind == CAPABILITY_CHOICE)
			*choice(p, &capabilities[i]) = state;
		else if (capabilities[i].kind == CAPABILITY_ALWAYS_ON && !state)
			return err_set(e, "the capability '%s' is always on", name);
		else if (capabilities[i].kind == CAPABILITY_NOT_THERE && state)
			return err_set(e, "the capability '%s' is not there yet", name);
		return 0;
	}
	return err_set(e, "'%.64s' is no capability", name);
}

/* Those of a list, into *p. */
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

/* More than the host's memory is nobody's cache. */
static int check_cache(const struct migration_parameters *p, struct err *e)
{
	uint64_t most = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);

	if (p->xbzrle_cache_bytes <= most)
		return 0;
	return err_set(e,
		       "'xbzrle-cache-size' is %" PRIu64 " (expected %u to %" PRIu64
		       ", this host's memory)",
		       p->xbzrle_cache_bytes, PAGE_CACHE_BYTES_MIN, most);
}

/* All of them or, when one cannot be had, none. */
static int set_parameters(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;
	json_t *v;

	(void)result;
	migration_get_parameters(context, &p);
	for (size_t i = 0; i < N_NUMBERS; i++)
		if ((v = json_object_get(arguments, number_parameters[i].name)))
			*number_of(&p, i) = (uint64_t)json_integer_value(v);
	if (json_object_get(arguments, "downtime-limit")) {
		p.downtime_sets++;
		p.downtime_chosen = true;
	} else if (json_object_get(arguments, "x-godwit-policy")) {
		p.downtime_chosen = false;
	}
	if (json_object_get(arguments, "xbzrle-cache-size") && check_cache(&p, e))
		return -1;
	if (take_capabilities(context, json_object_get(arguments, "x-godwit-capabilities"), &p, e))
		return err_context(e, "'x-godwit-capabilities'");
	if ((v = json_object_get(arguments, "multifd-compression")) &&
	    set_compression(&p, json_string_value(v), e))
		return -1;
	if ((v = json_object_get(arguments, "x-godwit-timeout-action")) &&
	    set_timeout_action(&p, json_string_value(v), e))
		return -1;
	if ((v = json_object_get(arguments, "x-godwit-policy")) &&
	    set_policy(&p, json_string_value(v), e))
		return -1;
	if ((v = json_object_get(arguments, "x-godwit-bind"))) {
		if (json_string_length(v) >= sizeof(p.bind))
			return err_set(e, "'x-godwit-bind' is longer than %zu characters",
				       sizeof(p.bind) - 1);
		memcpy(p.bind, json_string_value(v), json_string_length(v) + 1);
	}
	migration_set_parameters(context, &p);
	return 0;
}

static int query_parameters(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;
	char *policy;

	(void)arguments;
	migration_get_parameters(context, &p);
	policy = p.has_policy ? policy_to_text(&p.policy) : NULL;
	*result = json_pack("{s:s,s:s,s:s,s:s}", "multifd-compression", compression_name(&p),
			    "x-godwit-timeout-action", timeout_action_name(p.timeout_action),
			    "x-godwit-policy", policy ? policy : "", "x-godwit-bind", p.bind);
	if (*result)
		json_object_set_new(*result, "x-godwit-downtime-chosen",
				    json_boolean(p.downtime_chosen));
	for (size_t i = 0; *result && i < N_NUMBERS; i++)
		json_object_set_new(*result, number_parameters[i].name, number(*number_of(&p, i)));
	free(policy);
	return *result ? 0 : err_set(e, "out of memory");
}

static int set_capabilities(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;

	(void)result;
	migration_get_parameters(context, &p);
	if (take_capabilities(context, json_object_get(arguments, "capabilities"), &p, e))
		return -1;
	migration_set_parameters(context, &p);
	return 0;
}

static int query_capabilities(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_parameters p;

	(void)arguments;
	migration_get_parameters(context, &p);
	*result = json_array();
	for (size_t i = 0; *result && i < N_CAPABILITIES; i++) {
		const struct capability *c = &capabilities[i];
		bool on = c->kind == CAPABILITY_CHOICE ? *choice(&p, c)
						       : c->kind == CAPABILITY_ALWAYS_ON;

		json_array_append_new(
			*result, json_pack("{s:s,s:b}", "capability", c->name, "state", (int)on));
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
	{ .name = "detach", .type = CONTROL_BOOLEAN }, /* QEMU's, without meaning there too */
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
	{ .name = "migrate-set-parameters",
	  .arguments = parameter_arguments,
	  .run = set_parameters },
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
