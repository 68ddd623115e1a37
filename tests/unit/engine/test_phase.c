/*
 * The legal steps of a migration and of its guest's owner: every pair is tried, against lists that
 * are written down here once more.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "migrate/phase.h"

/* By the names that users see. */
static const struct {
	enum phase from;
	const char *to;
} steps[N_PHASES] = {
	{ PHASE_NONE, "setup," },
	{ PHASE_SETUP, "none,active,failed,cancelling," },
	{ PHASE_PRECOPY, "device,completed,failed,cancelling,x-godwit-undecided," },
	{ PHASE_SWITCHOVER, "completed,failed,cancelling,x-godwit-undecided," },
	{ PHASE_COMPLETED, "setup," },
	{ PHASE_FAILED, "setup," },
	{ PHASE_CANCELLING, "completed,failed,cancelled,x-godwit-undecided," },
	{ PHASE_CANCELLED, "setup," },
	{ PHASE_UNDECIDED, "completed,failed," },
};

static bool is_listed(const char *list, const char *name)
{
	char with_comma[64];
	const char *at;

	snprintf(with_comma, sizeof(with_comma), "%s,", name);
	at = strstr(list, with_comma);
	return at && (at == list || at[-1] == ',');
}

START_TEST(every_step_that_is_not_listed_is_refused_and_changes_nothing)
{
	unsigned int from, to;

	for (from = 0; from < N_PHASES; from++)
		for (to = 0; to < N_PHASES; to++) {
			bool expected = is_listed(steps[from].to, phase_name(to));
			enum phase now = from;

			ck_assert_uint_eq(steps[from].from, from);
			ck_assert_msg(phase_step(&now, to) == expected, "%s to %s",
				      phase_name(from), phase_name(to));
			ck_assert_uint_eq(now, expected ? to : from);
		}
}
END_TEST

START_TEST(cancel_leads_to_an_end_and_undecided_only_to_a_decision)
{
	unsigned int to;

	for (to = 0; to < N_PHASES; to++) {
		enum phase cancelling = PHASE_CANCELLING, undecided = PHASE_UNDECIDED;

		if (phase_step(&cancelling, to))
			ck_assert(!phase_under_way(to) && to != PHASE_NONE);
		if (phase_step(&undecided, to))
			ck_assert(to == PHASE_COMPLETED || to == PHASE_FAILED);
	}
}
END_TEST

START_TEST(guest_changes_hands_only_through_nobody_or_into_a_file)
{
	static const bool legal[N_OWNERS][N_OWNERS] = {
		[OWNER_SOURCE] = { [OWNER_NOBODY] = true, [OWNER_DESTINATION] = true },
		[OWNER_NOBODY] = { [OWNER_SOURCE] = true, [OWNER_DESTINATION] = true },
		/* What the destination owns never comes back. */
	};
	unsigned int from, to;

	for (from = 0; from < N_OWNERS; from++)
		for (to = 0; to < N_OWNERS; to++) {
			enum owner now = from;

			ck_assert_int_eq(phase_hand(&now, to), legal[from][to]);
			ck_assert_uint_eq(now, legal[from][to] ? to : from);
		}
}
END_TEST

START_TEST(end_follows_from_who_owns_the_guest)
{
	ck_assert_int_eq(phase_of_end(OWNER_DESTINATION, _i), PHASE_COMPLETED);
	ck_assert_int_eq(phase_of_end(OWNER_NOBODY, _i), PHASE_UNDECIDED);
	ck_assert_int_eq(phase_of_end(OWNER_SOURCE, _i), _i ? PHASE_CANCELLED : PHASE_FAILED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("phase");
	TCase *c = tcase_create("phase");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(c, every_step_that_is_not_listed_is_refused_and_changes_nothing);
	tcase_add_test(c, cancel_leads_to_an_end_and_undecided_only_to_a_decision);
	tcase_add_test(c, guest_changes_hands_only_through_nobody_or_into_a_file);
	tcase_add_loop_test(c, end_follows_from_who_owns_the_guest, 0, 2);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
