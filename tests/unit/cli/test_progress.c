/*
 * What a user is told of a migration: figures, the progress line, the summary, the report, the
 * parameters as they are typed. All pure.
 */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/policy/policy_json.h"
#include "vmm/base/err.h"
#include "vmm/cli/move/figures.h"
#include "vmm/cli/move/history.h"
#include "vmm/cli/move/settings.h"
#include "vmm/cli/move/progress.h"
#include "vmm/cli/move/report.h"
#include "vmm/cli/move/summary.h"

#define MIB		(1024ull * 1024)
#define COUNT(array)	((int)(sizeof(array) / sizeof((array)[0])))
#define HAS(text, in)	ck_assert_msg(strstr(in, text), "no '%s' in: %s", text, in)
#define LACKS(text, in) ck_assert_msg(!strstr(in, text), "'%s' in: %s", text, in)

/* -- figures -- */

static void read_text(struct figures *f, const char *json)
{
	json_t *o = json_loads(json, JSON_DECODE_ANY, NULL);

	ck_assert_ptr_nonnull(o);
	figures_read(f, o);
	json_decref(o);
}

static const struct {
	const char *json;
	enum figures_end end;
} ends[] = {
	{ "{}", FIGURES_GOES_ON },
	{ "{\"status\":\"setup\"}", FIGURES_GOES_ON },
	{ "{\"status\":\"cancelling\"}", FIGURES_GOES_ON },
	{ "{\"status\":\"completed\"}", FIGURES_MOVED },
	{ "{\"status\":\"failed\"}", FIGURES_FAILED },
	{ "{\"status\":\"cancelled\"}", FIGURES_CANCELLED },
	{ "{\"status\":\"x-godwit-undecided\"}", FIGURES_GOES_ON },
	{ "{\"status\":\"x-godwit-undecided\",\"x-godwit-undecided\":true}", FIGURES_UNDECIDED },
};

START_TEST(status_tells_whether_it_is_over)
{
	struct figures f;

	read_text(&f, ends[_i].json);
	ck_assert_int_eq(f.end, ends[_i].end);
}
END_TEST

static const char *const nonsense[] = {
	"[]",
	"7",
	"{\"status\":7,\"ram\":[],\"x-godwit-downtime\":null,\"total-time\":\"soon\"}",
	("{\"status\":\"act\\u001b[2Jive\",\"total-time\":-5,\"ram\":{\"remaining\":-1,"
	 "\"transferred\":1e300,\"total\":true}}"),
};

START_TEST(nonsense_becomes_zeros)
{
	struct figures f;

	read_text(&f, nonsense[_i]);
	ck_assert_uint_eq(f.total_ms, 0);
	ck_assert_uint_eq(f.left_bytes, 0);
	ck_assert_uint_eq(f.sent_bytes, 0);
	ck_assert_uint_eq(f.total_bytes, 0);
	ck_assert_uint_eq(figures_percent(&f), 0);
	ck_assert_ptr_null(strchr(f.status, '\033'));
}
END_TEST

START_TEST(hundred_percent_is_only_said_when_the_guest_is_there)
{
	struct figures f = { .total_bytes = 1024 * MIB, .left_bytes = 0 };

	ck_assert_uint_eq(figures_percent(&f), 99);
	f.left_bytes = 512 * MIB;
	ck_assert_uint_eq(figures_percent(&f), 50);
	f.left_bytes = UINT64_MAX;
	ck_assert_uint_eq(figures_percent(&f), 0);
	f.end = FIGURES_MOVED;
	ck_assert_uint_eq(figures_percent(&f), 100);
}
END_TEST

static const struct {
	uint64_t n;
	const char *text;
} sizes[] = {
	{ 0, "0 B" },
	{ 1023, "1023 B" },
	{ 1024, "1.0 KiB" },
	{ 1536 * 1024, "1.5 MiB" },
	{ 1024 * MIB - 1, "1.0 GiB" },
	{ UINT64_MAX, "16.0 EiB" },
};

START_TEST(sizes_are_readable)
{
	char text[FIGURES_TEXT];

	ck_assert_str_eq(figures_bytes(text, sizes[_i].n), sizes[_i].text);
}
END_TEST

START_TEST(times_are_readable)
{
	char text[FIGURES_TEXT];

	ck_assert_str_eq(figures_seconds(text, 59), "59 s");
	ck_assert_str_eq(figures_seconds(text, 200), "3 min 20 s");
	ck_assert_str_eq(figures_seconds(text, 7260), "2 h 1 min");
	ck_assert_str_eq(figures_us(text, 4299), "4.2 ms");
	figures_seconds(text, UINT64_MAX);
	figures_us(text, UINT64_MAX);
	ck_assert_uint_eq(figures_rate(UINT64_MAX, 1), 1000000000000000000ull);
	ck_assert_uint_eq(figures_rate(1000, 0), 0);
	ck_assert_uint_eq(figures_rate(1000, 500), 2000);
}
END_TEST

/* -- the progress line -- */

/* A migration of 1 GiB over a link of 100 MiB/s. */
static struct figures at(uint64_t sent_mib, uint64_t left_mib, uint64_t round)
{
	struct figures f = {
		.status = "active", .total_bytes = 1024 * MIB, .page_bytes = 4096, .limit_ms = 300
	};

	f.sent_bytes = sent_mib * MIB;
	f.left_bytes = left_mib * MIB;
	f.round = round;
	return f;
}

static void add(struct progress *p, const struct figures *f, uint64_t ms, char line[256])
{
	progress_add(p, f, ms);
	progress_line(p, line, 256);
}

START_TEST(line_tells_percent_bytes_rate_round_and_time_left)
{
	struct progress p = { 0 };
	struct figures f = at(0, 1024, 1);
	char line[256];

	add(&p, &f, 1000, line);
	ck_assert_str_eq(line, "0 %, 0 B sent, 1.0 GiB left, 0 B/s, round 1");
	f = at(512, 512, 1);
	add(&p, &f, 6120, line);
	ck_assert_str_eq(line,
			 "50 %, 512.0 MiB sent, 512.0 MiB left, 100.0 MiB/s, round 1, 6 s left");
	f = at(1024, 100, 2);
	f.dirty_pages_rate = 50 * 256; /* half of what the link takes */
	f.throttle_pct = 20;
	add(&p, &f, 11240, line);
	ck_assert_str_eq(line, "90 %, 1.0 GiB sent, 100.0 MiB left, 100.0 MiB/s, guest writes 50.0 "
			       "MiB/s, round 2, throttle 20 %, 2 s left");
	memcpy(f.status, "device", 7);
	add(&p, &f, 11250, line);
	HAS("handing over", line);
}
END_TEST

/* In setting up nothing is sent, and the first fractions of a second say little. */
START_TEST(time_left_is_told_once_the_rate_is_known)
{
	struct progress p = { 0 };
	struct figures f = at(0, 1024, 0);
	char line[256];

	add(&p, &f, 1000, line);
	add(&p, &f, 9000, line);
	f = at(1, 1023, 1);
	add(&p, &f, 9400, line);
	LACKS(" s left", line);
	f = at(100, 924, 1);
	add(&p, &f, 10000, line);
	LACKS(" s left", line);
	f = at(201, 823, 1);
	add(&p, &f, 10400, line);
	HAS("200.0 MiB/s, round 1, 5 s left", line);
}
END_TEST

START_TEST(percentage_never_falls)
{
	struct progress p = { 0 };
	struct figures f;
	char line[256];
	unsigned int last = 0;

	for (uint64_t i = 0; i < 200; i++) {
		/* Rounds of 20 samples; what is left jumps up at each. */
		f = at(i * 20, 1000 - i % 20 * 50, 1 + i / 20);
		add(&p, &f, i * 200, line);
		ck_assert_uint_ge(p.percent, last);
		last = p.percent;
		ck_assert_uint_le(p.n, PROGRESS_WINDOW);
	}
	ck_assert_uint_eq(last, 95);
}
END_TEST

START_TEST(rate_is_that_of_the_last_second)
{
	struct progress p = { 0 };
	struct figures f;
	uint64_t sent = 0;

	for (uint64_t i = 0; i < 100; i++) {
		sent += i < 50 ? 20 : 2;
		f = at(sent, 100, 1);
		progress_add(&p, &f, i * 200);
		if (i == 49)
			ck_assert_uint_eq(p.rate, 100 * MIB);
	}
	ck_assert_uint_eq(p.rate, 10 * MIB);
	/* The same moment twice changes nothing. */
	progress_add(&p, &f, 99 * 200);
	ck_assert_uint_eq(p.rate, 10 * MIB);
}
END_TEST

START_TEST(guest_that_outruns_the_link_is_said_after_a_while)
{
	struct progress p = { 0 };
	struct figures f;
	char line[256];

	for (uint64_t i = 0; i <= 20; i++) {
		f = at(i * 20, 100, 2);
		f.dirty_pages_rate = 200 * 256;
		f.expected_ms = 1000;
		add(&p, &f, i * 200, line);
		LACKS(" s left", line);
		if (i < 10)
			LACKS("converge", line);
	}
	HAS("will not converge: the guest writes 200.0 MiB/s, the link takes 100.0 MiB/s, downtime "
	    "limit 300 ms",
	    line);
	/* What fits into the pause converges. */
	f.limit_ms = 1000;
	add(&p, &f, 4200, line);
	LACKS("converge", line);
}
END_TEST

START_TEST(line_of_any_figures_fits)
{
	struct progress p = { 0 };
	struct figures f;
	char line[64];

	memset(&f, 0xff, sizeof(f));
	memset(f.status, 'x', sizeof(f.status));
	f.status[sizeof(f.status) - 1] = '\0';
	progress_add(&p, &f, 1);
	progress_add(&p, &f, UINT64_MAX);
	progress_line(&p, line, sizeof(line));
	ck_assert_uint_eq(strlen(line), sizeof(line) - 1);
}
END_TEST

/* -- the summary -- */

static const char completed[] =
	"{\"status\":\"completed\",\"total-time\":2200,\"setup-time\":200,\"downtime\":8,"
	"\"expected-downtime\":5,\"x-godwit-uri\":\"tcp:b:1\",\"ram\":{\"transferred\":1073741824,"
	"\"remaining\":0,\"total\":2147483648,\"duplicate\":77,\"normal\":262144,\"normal-bytes\":"
	"1073741824,\"dirty-pages-rate\":12,\"dirty-sync-count\":4,\"page-size\":4096},"
	"\"x-godwit-downtime\":{\"park-us\":500,\"pages-us\":1500,\"sync-us\":0,\"states-us\":600,"
	"\"load-us\":"
	"700,"
	"\"start-us\":200,\"total-us\":7500}}";

START_TEST(summary_has_the_fields_of_domjobinfo)
{
	static const char *const lines[] = {
		"Job type:            Completed\n",  "Time elapsed:        2200 ms\n",
		"Data processed:      1.0 GiB\n",    "Memory remaining:    0 B\n",
		"Memory total:        2.0 GiB\n",    "Memory bandwidth:    512.0 MiB/s\n",
		"Dirty rate:          12 pages/s\n", "Page size:           4096 bytes\n",
		"Iteration:           4\n",	     "Constant pages:      77\n",
		"Normal pages:        262144\n",     "Normal data:         1.0 GiB\n",
		"Expected downtime:   5 ms\n",	     "Setup time:          200 ms\n",
		"Total downtime:      7.5 ms\n",
	};
	char text[SUMMARY_BYTES];
	struct figures f;

	read_text(&f, completed);
	summary_write(&f, text);
	for (int i = 0; i < COUNT(lines); i++)
		HAS(lines[i], text);
}
END_TEST

START_TEST(parts_of_the_downtime_add_up)
{
	static const char *const parts[] = { "park the guest:", "last pages:", "disks synced:",
					     "states:",		"load there:", "start there:",
					     "the rest:" };
	char text[SUMMARY_BYTES];
	struct figures f;
	double sum = 0;

	read_text(&f, completed);
	summary_write(&f, text);
	for (int i = 0; i < COUNT(parts); i++) {
		const char *at_part = strstr(text, parts[i]);

		ck_assert_ptr_nonnull(at_part);
		sum += atof(at_part + strlen(parts[i]));
	}
	ck_assert_msg(sum > 7.49 && sum < 7.51, "%f", sum);
}
END_TEST

START_TEST(summary_of_any_figures_fits)
{
	char text[SUMMARY_BYTES];
	struct figures f;

	memset(&f, 0xff, sizeof(f));
	f.end = FIGURES_GOES_ON;
	f.park_us = f.pages_us = f.sync_us = f.states_us = f.load_us = f.start_us = 0;
	summary_write(&f, text);
	HAS("the rest:", text);
}
END_TEST

/* -- the report -- */

static void make_history(struct history *h, unsigned int samples)
{
	struct figures f;

	*h = (struct history){ 0 };
	history_note(h, HISTORY_STATUS, 0, 0, "setup", "");
	history_note(h, HISTORY_ROUND, 5, 1, "", "");
	for (unsigned int i = 0; i < samples; i++) {
		f = at(i, samples - i, 1);
		f.total_ms = i * 200;
		history_sample(h, &f, 5 * MIB);
	}
	history_note(h, HISTORY_DECISION, 300, 0, "switchover", "<script>alert(\"1\")&'\033[2J");
}

static char *html(const struct history *h, const char *vm)
{
	struct report r = { vm, "tcp:[::1]:7777", "moved", h, NULL };
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	report_html(&r, to);
	fclose(to);
	return text;
}

static unsigned int count(const char *text, const char *word)
{
	unsigned int n = 0;

	for (; (text = strstr(text, word)); text += strlen(word))
		n++;
	return n;
}

START_TEST(html_escapes_all_text_from_elsewhere)
{
	struct history h;
	char *text;

	make_history(&h, 3);
	snprintf(h.final.error, sizeof(h.final.error), "a <b> & \xff");
	text = html(&h, "<vm>\"'");
	LACKS("<script", text);
	LACKS("<vm>", text);
	LACKS("\033", text);
	LACKS("\xff", text);
	HAS("&lt;script&gt;alert(&quot;1&quot;)&amp;&#39;", text);
	HAS("&lt;vm&gt;&quot;&#39;", text);
	HAS("a &lt;b&gt; &amp; ?", text);
	free(text);
	history_free(&h);
}
END_TEST

START_TEST(html_is_one_file_with_a_picture)
{
	static const char *const pairs[] = { "svg", "table", "pre", "html", "body", "style" };
	char open[16], close[16], *text;
	struct history h;

	make_history(&h, 50);
	text = html(&h, "web");
	for (int i = 0; i < COUNT(pairs); i++) {
		snprintf(open, sizeof(open), "<%s", pairs[i]);
		snprintf(close, sizeof(close), "</%s>", pairs[i]);
		ck_assert_uint_eq(count(text, open), 1);
		ck_assert_uint_eq(count(text, close), 1);
	}
	ck_assert_uint_eq(count(text, "<polyline"), 3); /* left, sent, limit of the downtime */
	ck_assert_uint_eq(count(text, "<text"), count(text, "</text>"));
	ck_assert_uint_eq(count(text, "http"), 1); /* the name of SVG */
	LACKS("nan", text);
	LACKS("inf", text);
	free(text);
	history_free(&h);
}
END_TEST

START_TEST(picture_of_no_or_senseless_samples_is_drawn)
{
	struct history h = { 0 };
	struct figures f;
	char *text = html(&h, "web");

	ck_assert_uint_eq(count(text, "<polyline"), 0);
	free(text);
	memset(&f, 0xff, sizeof(f));
	f.status[0] = f.error[0] = f.uri[0] = '\0';
	f.end = FIGURES_GOES_ON;
	f.total_ms = 0;
	history_sample(&h, &f, UINT64_MAX);
	f.total_ms = INT64_MAX;
	history_sample(&h, &f, 0);
	history_note(&h, HISTORY_DECISION, UINT64_MAX, 0, "x", "y");
	text = html(&h, "web");
	LACKS("nan", text);
	LACKS("inf", text);
	ck_assert_uint_lt(strlen(text), 100000);
	free(text);
	history_free(&h);
}
END_TEST

START_TEST(history_of_any_length_stays_small_and_in_order)
{
	struct history h;

	make_history(&h, 100000);
	ck_assert_uint_le(h.n_samples, HISTORY_SAMPLES);
	ck_assert_uint_ge(h.n_samples, HISTORY_SAMPLES / 4);
	ck_assert_uint_eq(h.samples[0].ms, 0);
	ck_assert_uint_ge(h.samples[h.n_samples - 1].ms, 99000 * 200);
	for (unsigned int i = 1; i < h.n_samples; i++)
		ck_assert_uint_gt(h.samples[i].ms, h.samples[i - 1].ms);
	for (unsigned int i = 0; i < HISTORY_NOTES + 10; i++)
		history_note(&h, HISTORY_ROUND, 10000 - i, i, "", "");
	ck_assert_uint_eq(h.n_notes, HISTORY_NOTES);
	ck_assert_uint_eq(h.notes_lost, 13);
	for (unsigned int i = 1; i < h.n_notes; i++)
		ck_assert_uint_ge(h.notes[i].ms, h.notes[i - 1].ms);
	history_free(&h);
}
END_TEST

START_TEST(json_report_has_every_sample_and_decision)
{
	struct report r = { "web", "tcp:b:1", "failed", NULL, NULL };
	struct history h;
	json_t *o, *decision;

	make_history(&h, 7);
	r.history = &h;
	r.answer = json_pack("{s:s}", "status", "failed");
	o = report_json(&r);
	ck_assert_uint_eq(json_array_size(json_object_get(o, "samples")), 7);
	ck_assert_uint_eq(json_array_size(json_object_get(o, "rounds")), 1);
	ck_assert_uint_eq(json_array_size(json_object_get(o, "statuses")), 1);
	decision = json_array_get(json_object_get(o, "decisions"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(decision, "action")), "switchover");
	ck_assert_int_eq(json_integer_value(json_object_get(decision, "time")), 300);
	ck_assert_str_eq(json_string_value(json_object_get(o, "result")), "failed");
	ck_assert_ptr_nonnull(json_object_get(o, "query-migrate"));
	json_decref(o);
	json_decref(r.answer);
	history_free(&h);
}
END_TEST

/* -- parameters -- */

static const struct {
	const char *name, *value, *qmp;
	json_int_t n;
	int multifd;
} good[] = {
	{ "bandwidth", "20M", "max-bandwidth", 20 << 20, -1 },
	{ "bandwidth", "0", "max-bandwidth", 0, -1 },
	{ "max-bandwidth", "1G", "max-bandwidth", 1 << 30, -1 },
	{ "downtime", "100", "downtime-limit", 100, -1 },
	{ "downtime", "100ms", "downtime-limit", 100, -1 },
	{ "downtime-limit", "2000000", "downtime-limit", 2000000, -1 },
	{ "x-godwit-timeout", "7", "x-godwit-timeout", 7, -1 },
	{ "timeout-per-gib", "800", "x-godwit-timeout-per-gib", 800, -1 },
	{ "progress-timeout", "150", "x-godwit-progress-timeout", 150, -1 },
	{ "switchover-timeout", "900", "x-godwit-switchover-timeout", 900, -1 },
	{ "channels", "1", "multifd-channels", 1, 0 },
	{ "channels", "16", "multifd-channels", 16, 1 },
	{ "multifd-channels", "4", "multifd-channels", 4, -1 },
};

START_TEST(parameters_are_read_by_both_names)
{
	json_t *multifd;
	struct settings p;
	struct err e;

	settings_init(&p);
	ck_assert_int_eq(settings_add(&p, good[_i].name, good[_i].value, &e), 0);
	ck_assert_uint_eq(json_object_size(p.wanted), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(p.wanted, good[_i].qmp)), good[_i].n);
	multifd = json_object_get(p.capabilities, "multifd");
	ck_assert_int_eq(multifd ? json_is_true(multifd) : -1, good[_i].multifd);
	settings_free(&p);
}
END_TEST

static const struct {
	const char *value;
	json_int_t s, per_gib;
} timeouts[] = { { "0", 0, 0 }, { "60", 60, 0 }, { "800/GiB", 0, 800 }, { "1/gib", 0, 1 } };

START_TEST(timeout_is_for_the_whole_or_for_each_gib)
{
	struct settings p;
	struct err e;

	settings_init(&p);
	/* The last one counts. */
	ck_assert_int_eq(settings_add(&p, "timeout", "5/GiB", &e), 0);
	ck_assert_int_eq(settings_add(&p, "timeout", timeouts[_i].value, &e), 0);
	ck_assert_uint_eq(json_object_size(p.wanted), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(p.wanted, "x-godwit-timeout")),
			 timeouts[_i].s);
	ck_assert_int_eq(json_integer_value(json_object_get(p.wanted, "x-godwit-timeout-per-gib")),
			 timeouts[_i].per_gib);
	settings_free(&p);
}
END_TEST

static const char mine[] =
	"{\"id\":{\"uuid\":\"80554327-0569-496b-bdeb-fcbbf52b827d\"},\"name\":\"mine\","
	"\"description\":\"\",\"maxMigrations\":1,\"autoConvergence\":false,"
	"\"migrationCompression\":false,\"enableGuestEvents\":false,\"config\":{"
	"\"initialItems\":[],\"convergenceItems\":[],\"lastItems\":[{\"action\":\"abort\","
	"\"params\":[]}]}}";

/* The VM gets a built-in policy's name, and a file's text. */
START_TEST(policy_and_action_are_words)
{
	char file[] = "/tmp/godwit-unit-XXXXXX", word[64];
	int fd = mkstemp(file);
	struct settings p;
	struct policy policy;
	struct err e;

	settings_init(&p);
	ck_assert_int_eq(settings_add(&p, "policy", "minimal-downtime", &e), 0);
	ck_assert_str_eq(json_string_value(json_object_get(p.wanted, "x-godwit-policy")),
			 "minimal-downtime");
	ck_assert_int_eq(dprintf(fd, "[%s]\n", mine), (int)sizeof(mine) + 2);
	close(fd);
	snprintf(word, sizeof(word), "%s#mine", file);
	ck_assert_msg(!settings_add(&p, "policy", word, &e), "%s", e.text);
	unlink(file);
	ck_assert_str_eq(json_string_value(json_object_get(p.wanted, "x-godwit-policy")), mine);
	/* What is switched off beside it goes before it. */
	ck_assert_int_eq(settings_add(&p, "policy", "suspend-workload-if-needed", &e), 0);
	ck_assert_int_eq(settings_add(&p, "compress", "zstd", &e), 0);
	ck_assert_int_eq(settings_add(&p, "auto-converge", "off", &e), 0);
	ck_assert_int_eq(
		policy_from_text(json_string_value(json_object_get(p.wanted, "x-godwit-policy")),
				 &policy, &e),
		0);
	ck_assert(!policy.compression && !policy.auto_convergence && policy.guest_events);
	ck_assert_str_eq(policy.name, "Suspend workload if needed");
	ck_assert_int_eq(settings_add(&p, "x-godwit-policy", "", &e), 0);
	ck_assert_str_eq(json_string_value(json_object_get(p.wanted, "x-godwit-policy")), "");
	ck_assert_int_eq(settings_add(&p, "timeout-action", "post-copy", &e), 0);
	ck_assert_str_eq(json_string_value(json_object_get(p.wanted, "x-godwit-timeout-action")),
			 "post-copy");
	settings_free(&p);
}
END_TEST

#define LONG "0123456789012345678901234567890123456789012345678901234567890123"

static const struct {
	const char *name, *value, *says;
} bad[] = {
	{ "bandwidth", "fast", "not a size" },
	{ "bandwidth", "-1", "not a size" },
	{ "bandwidth", "9223372036854775808", "too large for a rate" },
	{ "bandwidth", "16000000T", "too large" },
	{ "downtime", "2000001", "from 0 to 2000000" },
	{ "downtime", "ms", "not a number" },
	{ "downtime", "", "not a number" },
	{ "downtime", LONG "ms", "not a number" },
	{ "timeout", "1.5", "not a number" },
	{ "timeout", "5/MiB", "'5/MiB' is neither a number of seconds nor one for each GiB" },
	{ "timeout", LONG "/GiB", "is neither" },
	{ "x-godwit-timeout", "5/GiB", "not a number" },
	{ "timeout-action", "", "'' is not abort, force or post-copy" },
	{ "policy", "minimal", "'minimal' is neither a policy (minimal-downtime, " },
	{ "channels", "0", "from 1 to 16" },
	{ "channels", "17", "from 1 to 16" },
	{ "bind", LONG, "more than 63" },
	{ "bind", "\xff", "not UTF-8" },
	{ "bandwith", "1", "did you mean bandwidth?" },
	{ "wings", "2", "unknown parameter 'wings' (godwit set VM lists them)" },
};

START_TEST(bad_parameter_is_refused_with_its_range)
{
	struct err e = { "" };
	struct settings p;

	settings_init(&p);
	ck_assert_int_eq(settings_add(&p, bad[_i].name, bad[_i].value, &e), -1);
	HAS(bad[_i].says, e.text);
	ck_assert_uint_eq(json_object_size(p.wanted), 0);
	settings_free(&p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("progress");
	TCase *figures = tcase_create("figures"), *progress = tcase_create("progress"),
	      *report = tcase_create("report"), *parameters = tcase_create("parameters");
	SRunner *runner = srunner_create(s);
	int failed;

	tcase_add_loop_test(figures, status_tells_whether_it_is_over, 0, COUNT(ends));
	tcase_add_loop_test(figures, nonsense_becomes_zeros, 0, COUNT(nonsense));
	tcase_add_test(figures, hundred_percent_is_only_said_when_the_guest_is_there);
	tcase_add_loop_test(figures, sizes_are_readable, 0, COUNT(sizes));
	tcase_add_test(figures, times_are_readable);
	suite_add_tcase(s, figures);
	tcase_add_test(progress, line_tells_percent_bytes_rate_round_and_time_left);
	tcase_add_test(progress, time_left_is_told_once_the_rate_is_known);
	tcase_add_test(progress, percentage_never_falls);
	tcase_add_test(progress, rate_is_that_of_the_last_second);
	tcase_add_test(progress, guest_that_outruns_the_link_is_said_after_a_while);
	tcase_add_test(progress, line_of_any_figures_fits);
	tcase_add_test(progress, summary_has_the_fields_of_domjobinfo);
	tcase_add_test(progress, parts_of_the_downtime_add_up);
	tcase_add_test(progress, summary_of_any_figures_fits);
	suite_add_tcase(s, progress);
	tcase_add_test(report, html_escapes_all_text_from_elsewhere);
	tcase_add_test(report, html_is_one_file_with_a_picture);
	tcase_add_test(report, picture_of_no_or_senseless_samples_is_drawn);
	tcase_add_test(report, history_of_any_length_stays_small_and_in_order);
	tcase_add_test(report, json_report_has_every_sample_and_decision);
	suite_add_tcase(s, report);
	tcase_add_loop_test(parameters, timeout_is_for_the_whole_or_for_each_gib, 0,
			    COUNT(timeouts));
	tcase_add_test(parameters, policy_and_action_are_words);
	tcase_add_loop_test(parameters, parameters_are_read_by_both_names, 0, COUNT(good));
	tcase_add_loop_test(parameters, bad_parameter_is_refused_with_its_range, 0, COUNT(bad));
	suite_add_tcase(s, parameters);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
