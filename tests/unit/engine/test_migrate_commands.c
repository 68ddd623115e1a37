/*
 * The QMP commands of migration, from request to answer, over a migration that only remembers.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/commands.h"
#include "migrate/migration.h"
#include "vmm/base/err.h"
#include "vmm/control/dispatch.h"

/* -- in place of the migration -- */

struct migration {
	struct migration_parameters parameters;
	struct migration_report report;
	struct check_report check;
	bool under_way;
	char started[128];
	unsigned int sets;
};

static struct migration mig;

void migration_get_parameters(struct migration *m, struct migration_parameters *out)
{
	*out = m->parameters;
}

int migration_set_parameters(struct migration *m, const struct migration_parameters *p,
			     struct err *e)
{
	(void)e;
	m->parameters = *p;
	m->sets++;
	return 0;
}

bool migration_under_way(struct migration *m)
{
	return m->under_way;
}

int migration_start(struct migration *m, const char *uri, struct err *e)
{
	(void)e;
	snprintf(m->started, sizeof(m->started), "%s", uri);
	return 0;
}

int migration_check(struct migration *m, const char *uri, struct err *e)
{
	(void)e;
	snprintf(m->started, sizeof(m->started), "check of %s", uri);
	return 0;
}

void migration_query_check(struct migration *m, struct check_report *out)
{
	*out = m->check;
}

bool migration_cancel(struct migration *m, const char *why)
{
	(void)m;
	(void)why;
	return true;
}

int migration_force_resume(struct migration *m, struct err *e)
{
	(void)m;
	return err_set(e, "there is nothing to force");
}

void migration_query(struct migration *m, struct migration_report *out)
{
	*out = m->report;
}

/* -- requests -- */

static json_t *ask(const char *request)
{
	const struct control_table tables[] = { { migrate_commands, &mig }, { NULL, NULL } };
	json_t *o = json_loads(request, 0, NULL), *answer;
	bool negotiated = true;

	ck_assert_msg(o != NULL, "%s", request);
	answer = dispatch(tables, &negotiated, o);
	json_decref(o);
	return answer;
}

/* The error's sentence, or "" for a result. */
static const char *refusal(const char *request)
{
	static char text[512];
	json_t *answer = ask(request);
	const char *desc = json_string_value(
		json_object_get(json_object_get(answer, "error"), "desc"));

	snprintf(text, sizeof(text), "%s", desc ? desc : "");
	json_decref(answer);
	return text;
}

static void set_up(void)
{
	memset(&mig, 0, sizeof(mig));
	mig.parameters = (struct migration_parameters){ .downtime_ms = 300, .channels = 2 };
}

#define SET(list) \
	"{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":" list "}}"
#define CAP(name, state) "{\"capability\":\"" name "\",\"state\":" state "}"

static const struct {
	const char *list, *says; /* "": taken */
	bool multifd;
} capabilities[] = {
	{ "[]", "", false },
	{ "[" CAP("multifd", "true") "]", "", true },
	{ "[" CAP("multifd", "true") "," CAP("multifd", "false") "]", "", false },
	{ "[" CAP("events", "true") "," CAP("return-path", "true") "," CAP("multifd", "true") "]",
	  "", true },
	{ "[" CAP("xbzrle", "false") "," CAP("multifd", "true") "]", "", true },
	/* One that cannot be had: none is taken. */
	{ "[" CAP("multifd", "true") "," CAP("postcopy-ram", "true") "]",
	  "'postcopy-ram' is not implemented", false },
	{ "[" CAP("postcopy-ram", "true") "]", "'postcopy-ram' is not implemented", false },
	{ "[" CAP("pause-before-switchover", "true") "]", "is not implemented", false },
	{ "[" CAP("return-path", "false") "]", "'return-path' is always on", false },
	{ "[" CAP("events", "false") "]", "'events' is always on", false },
	{ "[" CAP("multifd", "true") "," CAP("wings", "true") "]", "'wings' is no capability",
	  false },
	{ "[7]", "'capabilities[0]' must be an object", false },
	{ "[" CAP("multifd", "true") ",{\"capability\":\"multifd\"}]", "'capabilities[1]' must be",
	  false },
	{ "[" CAP("multifd", "1") "]", "must be", false },
	{ "[{\"capability\":7,\"state\":true}]", "must be", false },
	{ "[{\"capability\":\"multifd\",\"state\":true,\"more\":1}]", "must be", false },
	{ "{}", "capabilities", false },
};

START_TEST(capabilities_are_taken_all_or_none)
{
	char request[512];
	const char *says;

	snprintf(request, sizeof(request), SET("%s"), capabilities[_i].list);
	says = refusal(request);
	ck_assert_msg(capabilities[_i].says[0] ? strstr(says, capabilities[_i].says) != NULL
					       : !says[0],
		      "'%s'", says);
	ck_assert_int_eq(mig.parameters.multifd, capabilities[_i].multifd);
}
END_TEST

START_TEST(what_a_migration_may_use_is_a_capability)
{
	ck_assert_str_eq(refusal(SET("[" CAP("auto-converge", "true") "]")), "");
	ck_assert(mig.parameters.auto_converge && !mig.parameters.xbzrle);
	ck_assert_str_eq(
		refusal(SET("[" CAP("xbzrle", "true") "," CAP("auto-converge", "false") "]")), "");
	ck_assert(!mig.parameters.auto_converge && mig.parameters.xbzrle);
	ck_assert_str_eq(refusal(SET("[" CAP("dirty-limit", "true") "]")), "");
	ck_assert(mig.parameters.dirty_limit);
}
END_TEST

START_TEST(capabilities_do_not_change_under_a_migration)
{
	mig.under_way = true;
	ck_assert_ptr_nonnull(strstr(refusal(SET("[" CAP("multifd", "true") "]")), "under way"));
	ck_assert(!mig.parameters.multifd);
}
END_TEST

START_TEST(all_capabilities_are_told)
{
	static const char *const names[] = { "xbzrle",	     "auto-converge",
					     "postcopy-ram", "multifd",
					     "events",	     "pause-before-switchover",
					     "dirty-limit",  "return-path" };
	json_t *answer, *item;
	size_t i;

	mig.parameters.multifd = true;
	answer = ask("{\"execute\":\"query-migrate-capabilities\"}");
	ck_assert_uint_eq(json_array_size(json_object_get(answer, "return")), 8);
	json_array_foreach(json_object_get(answer, "return"), i, item)
	{
		bool on = i == 3 || i == 4 || i == 7;

		ck_assert_str_eq(json_string_value(json_object_get(item, "capability")), names[i]);
		ck_assert(json_is_true(json_object_get(item, "state")) == on);
	}
	json_decref(answer);
}
END_TEST

static const struct {
	const char *arguments, *says;
} parameters[] = {
	{ "{\"max-bandwidth\":0,\"downtime-limit\":2000000,\"multifd-channels\":16}", "" },
	{ "{\"max-bandwidth\":-1}", "max-bandwidth" },
	{ "{\"downtime-limit\":2000001}", "2000000" },
	{ "{\"multifd-channels\":0}", "multifd-channels" },
	{ "{\"multifd-channels\":17}", "16" },
	{ "{\"announce-rounds\":0,\"announce-initial\":0,\"announce-step\":1,\"announce-max\":0}",
	  "" },
	{ "{\"announce-step\":0}", "announce-step" },
	{ "{\"announce-rounds\":1001}", "1000" },
	{ "{\"x-godwit-timeout\":\"5\"}", "x-godwit-timeout" },
	{ "{\"x-godwit-bind\":"
	  "\"0123456789012345678901234567890123456789012345678901234567890123\"}",
	  "longer than 63" },
	{ "{\"x-godwit-timeout\":0,\"x-godwit-timeout-per-gib\":800}", "" },
	{ "{\"x-godwit-timeout-per-gib\":-1}", "x-godwit-timeout-per-gib" },
	{ "{\"x-godwit-progress-timeout\":31536001}", "31536000" },
	{ "{\"x-godwit-timeout-action\":\"force\"}", "" },
	{ "{\"x-godwit-timeout-action\":\"ignore\"}",
	  "'x-godwit-timeout-action' must be abort, force or post-copy, not 'ignore'" },
	{ "{\"x-godwit-timeout-action\":\"post-copy\"}",
	  "'x-godwit-timeout-action': post-copy is not implemented" },
	{ "{\"x-godwit-policy\":\"\"}", "" },
	{ "{\"x-godwit-policy\":\"minimal-downtime\"}", "" },
	{ "{\"x-godwit-policy\":\"post-copy\"}",
	  "the policy 'Post-copy migration' switches to post-copy, which is not implemented" },
	{ "{\"x-godwit-policy\":\"fast\"}", "'x-godwit-policy': 'fast' is no policy (expected" },
	{ "{\"x-godwit-policy\":\"{\\\"id\\\":7}\"}",
	  "'x-godwit-policy': $.id: an integer where an object" },
	{ "{\"x-godwit-policy\":7}", "x-godwit-policy" },
	/* All or none. */
	{ "{\"max-bandwidth\":5,\"x-godwit-policy\":\"fast\"}", "no policy" },
	{ "{\"max-bandwidth\":5,\"x-godwit-capabilities\":[" CAP("multifd", "true") "," CAP(
		  "postcopy-ram", "true") "]}",
	  "'x-godwit-capabilities': the capability 'postcopy-ram' is not implemented" },
	{ "{\"x-godwit-timeout-action\":\"post-copy\",\"x-godwit-capabilities\":[" CAP("multifd",
										       "true") "]}",
	  "post-copy is not implemented" },
	{ "{\"max-bandwidth\":5,\"x-godwit-capabilities\":[" CAP("multifd", "true") "]}", "" },
	{ "{\"xbzrle-cache-size\":1099511627776000}", "this host's memory" },
	{ "{\"xbzrle-cache-size\":67108864}", "" },
	{ "{\"wings\":2}", "wings" },
};

START_TEST(parameters_keep_to_their_ranges)
{
	char request[512];
	const char *says;

	snprintf(request, sizeof(request),
		 "{\"execute\":\"migrate-set-parameters\",\"arguments\":%s}",
		 parameters[_i].arguments);
	says = refusal(request);
	ck_assert_msg(parameters[_i].says[0] ? strstr(says, parameters[_i].says) != NULL : !says[0],
		      "'%s'", says);
	ck_assert_uint_eq(mig.sets, parameters[_i].says[0] ? 0 : 1);
}
END_TEST

/* What is told is what may be set again. */
START_TEST(parameters_are_told_as_they_are_set)
{
	static const char *const policies[] = {
		"suspend-workload-if-needed", "",
		"{\"id\":{\"uuid\":\"80554327-0569-496b-bdeb-fcbbf52b827d\"},\"name\":\"mine\","
		"\"description\":\"\",\"maxMigrations\":1,\"autoConvergence\":false,"
		"\"migrationCompression\":false,\"enableGuestEvents\":false,\"config\":{"
		"\"initialItems\":[],\"convergenceItems\":[],\"lastItems\":[{\"action\":\"abort\","
		"\"params\":[]}]}}"
	};
	json_t *request, *answer, *o;
	char *text;

	request = json_pack("{s:s,s:{s:i,s:i,s:i,s:i,s:s,s:s,s:s}}", "execute",
			    "migrate-set-parameters", "arguments", "x-godwit-timeout", 7,
			    "x-godwit-timeout-per-gib", 800, "x-godwit-progress-timeout", 9,
			    "x-godwit-switchover-timeout", 700, "x-godwit-timeout-action", "force",
			    "x-godwit-policy", policies[_i], "x-godwit-bind", "::1");
	text = json_dumps(request, 0);
	ck_assert_str_eq(refusal(text), "");
	answer = ask("{\"execute\":\"query-migrate-parameters\"}");
	o = json_object_get(answer, "return");
	ck_assert_int_eq(json_object_update_existing_new(json_object_get(request, "arguments"),
							 json_deep_copy(o)),
			 0);
	free(text);
	text = json_dumps(request, 0);
	ck_assert_str_eq(refusal(text), "");
	ck_assert_str_eq(json_string_value(json_object_get(o, "x-godwit-policy")), policies[_i]);
	ck_assert_uint_eq(mig.parameters.timeout.per_gib_s, 800);
	ck_assert_int_eq(mig.parameters.timeout_action, TIMEOUT_FORCE);
	ck_assert_uint_eq(mig.parameters.downtime_sets, 0);
	ck_assert_str_eq(refusal("{\"execute\":\"migrate-set-parameters\",\"arguments\":{"
				 "\"downtime-limit\":300}}"),
			 "");
	ck_assert_uint_eq(mig.parameters.downtime_sets, 1);
	/* With the policy, or after it: not before. */
	ck_assert(mig.parameters.downtime_chosen);
	ck_assert_str_eq(refusal("{\"execute\":\"migrate-set-parameters\",\"arguments\":{"
				 "\"x-godwit-policy\":\"minimal-downtime\"}}"),
			 "");
	ck_assert(!mig.parameters.downtime_chosen);
	ck_assert_str_eq(refusal("{\"execute\":\"migrate-set-parameters\",\"arguments\":{"
				 "\"x-godwit-policy\":\"minimal-downtime\",\"downtime-limit\":9}}"),
			 "");
	ck_assert(mig.parameters.downtime_chosen);
	free(text);
	json_decref(answer);
	json_decref(request);
}
END_TEST

/* A row whose preset its own range refuses could not be set back. */
START_TEST(presets_are_within_their_ranges)
{
	struct migration_parameters p, again;
	struct err e = { "" };
	char *text;

	parameters_preset(&p);
	parameters_preset(&again);
	ck_assert_uint_eq(p.downtime_ms, 300);
	ck_assert_uint_eq(p.channels, 2);
	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		ck_assert_ptr_eq(parameter_find(r->qmp), r);
		ck_assert(!r->name || parameter_find(r->name)->qmp);
		ck_assert_msg(!r->name || (r->help && r->unit), "%s", r->qmp);
		if (parameter_is_number(r)) {
			ck_assert_int_eq(parameter_set_number(r, &p, r->preset, &e), 0);
		} else if (!parameter_is_capability(r)) {
			text = parameter_text(r, &p);
			ck_assert_int_eq(parameter_set_text(r, &p, text, &e), 0);
			free(text);
		}
	}
	ck_assert_mem_eq(&p, &again, sizeof(p));
}
END_TEST

START_TEST(migrate_takes_what_qemu_clients_send)
{
	ck_assert_str_eq(refusal("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:b:1\","
				 "\"detach\":true,\"blk\":false,\"inc\":false}}"),
			 "");
	ck_assert_str_eq(mig.started, "tcp:b:1");
	mig.started[0] = '\0';
	ck_assert_ptr_nonnull(strstr(refusal("{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
					     "\"tcp:b:1\",\"blk\":true}}"),
				     "'blk' is not implemented"));
	ck_assert_str_eq(mig.started, "");
}
END_TEST

START_TEST(error_from_a_hostile_destination_is_still_told)
{
	json_t *answer, *o;

	mig.report.status = PHASE_FAILED;
	strcpy(mig.report.error, "the destination refuses: \xff\xfe");
	answer = ask("{\"execute\":\"query-migrate\"}");
	o = json_object_get(answer, "return");
	ck_assert_str_eq(json_string_value(json_object_get(o, "error-desc")),
			 "the destination refuses: ?\?");
	json_decref(answer);
}
END_TEST

START_TEST(undecided_is_told_with_a_status_that_qemu_knows)
{
	json_t *answer, *o;

	mig.report.status = PHASE_UNDECIDED;
	answer = ask("{\"execute\":\"query-migrate\"}");
	o = json_object_get(answer, "return");
	ck_assert_str_eq(json_string_value(json_object_get(o, "status")), "x-godwit-undecided");
	ck_assert(json_is_true(json_object_get(o, "x-godwit-undecided")));
	json_decref(answer);
}
END_TEST

START_TEST(rate_is_that_of_the_round_under_way)
{
	struct stats st = { .round_at_us = 1000000, .data_bytes = 5000 };
	json_t *answer, *ram;

	ck_assert_uint_eq(stats_rate(&st, 1000000), 0);
	ck_assert_uint_eq(stats_rate(&st, 1000100), 50000000);
	st.send_rate = 7; /* a later round: its first moments say less than the round before */
	ck_assert_uint_eq(stats_rate(&st, 1000100), 7);
	stats_begin_round(&st, 2, 2000000);
	ck_assert_uint_eq(stats_rate(&st, 2000000 + STATS_RATE_US), 0);
	st.data_bytes += 1 << 20;
	ck_assert_uint_eq(stats_rate(&st, 3000000), 1 << 20);
	st.round_at_us = 0;
	ck_assert_uint_eq(stats_rate(&st, 3000000), 7);

	mig.report.status = PHASE_PRECOPY;
	mig.report.rate_bytes = 1000000;
	answer = ask("{\"execute\":\"query-migrate\"}");
	ram = json_object_get(json_object_get(answer, "return"), "ram");
	ck_assert_double_eq(json_real_value(json_object_get(ram, "mbps")), 8);
	json_decref(answer);
}
END_TEST

/* The answer to x-godwit-query-check is `expected`. */
static void check_is(const char *expected)
{
	json_t *wanted = json_loads(expected, 0, NULL);
	json_t *answer = ask("{\"execute\":\"x-godwit-query-check\"}");
	char *got = json_dumps(json_object_get(answer, "return"), 0);

	ck_assert_ptr_nonnull(wanted);
	ck_assert_msg(json_equal(json_object_get(answer, "return"), wanted), "%s", got);
	free(got);
	json_decref(wanted);
	json_decref(answer);
}

START_TEST(check_is_begun_and_told)
{
	struct check_report *r = &mig.check;

	ck_assert_str_eq(refusal("{\"execute\":\"x-godwit-check\",\"arguments\":{\"uri\":"
				 "\"tcp:b:1\"}}"),
			 "");
	ck_assert_str_eq(mig.started, "check of tcp:b:1");
	check_is("{\"status\":\"none\"}");
	r->status = CHECK_FAILED;
	strcpy(r->uri, "tcp:b:1");
	strcpy(r->error, "nobody is there");
	check_is("{\"status\":\"failed\",\"uri\":\"tcp:b:1\",\"error-desc\":\"nobody is there\"}");
	r->status = CHECK_COMPLETED;
	r->error[0] = 0;
	r->check.in.look[0] = (struct predict_look){ 25000, 4096 };
	r->check.in.n_looks = 1;
	r->check.touched_bytes = 8192;
	r->check.link = (struct probe){ 1000, 20 };
	r->check.prediction = (struct prediction){ .answer = PREDICT_CONVERGES,
						   .total_us = 5000000,
						   .least_us = 4000000,
						   .pause_us = 1500,
						   .limit_us = 300000,
						   .rounds = 3,
						   .sent_bytes = 9000,
						   .throttle_permille = 401,
						   .lost_us = 7000,
						   .sentence = "converges" };
	check_is("{\"status\":\"completed\",\"uri\":\"tcp:b:1\",\"downtime-limit\":300,"
		 "\"compression-left-out\":false,\"prediction\":{\"answer\":\"converges\","
		 "\"moves\":true,"
		 "\"sentence\":\"converges\",\"total-time\":5000,\"total-time-least\":4000,"
		 "\"downtime\":2,\"rounds\":3,\"transferred\":9000,\"lost-time\":7,"
		 "\"cpu-throttle-percentage\":41},\"sample\":{\"touched-bytes\":8192,"
		 "\"zero-bytes\":0,\"rate\":1000,\"round-trip-us\":20,"
		 "\"dirty\":[{\"us\":25000,\"bytes\":4096}]}}");
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("migrate-commands");
	TCase *all = tcase_create("commands");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(all, set_up, NULL);
	tcase_add_loop_test(all, capabilities_are_taken_all_or_none, 0, COUNT(capabilities));
	tcase_add_test(all, what_a_migration_may_use_is_a_capability);
	tcase_add_test(all, capabilities_do_not_change_under_a_migration);
	tcase_add_test(all, all_capabilities_are_told);
	tcase_add_loop_test(all, parameters_keep_to_their_ranges, 0, COUNT(parameters));
	tcase_add_loop_test(all, parameters_are_told_as_they_are_set, 0, 3);
	tcase_add_test(all, presets_are_within_their_ranges);
	tcase_add_test(all, migrate_takes_what_qemu_clients_send);
	tcase_add_test(all, error_from_a_hostile_destination_is_still_told);
	tcase_add_test(all, undecided_is_told_with_a_status_that_qemu_knows);
	tcase_add_test(all, check_is_begun_and_told);
	tcase_add_test(all, rate_is_that_of_the_round_under_way);
	suite_add_tcase(s, all);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
