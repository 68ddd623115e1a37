/*
 * A machine in a file, with a fake guest (plain memory, no KVM): what was saved is what is loaded,
 * and a file that was cut, changed or made by others is refused.
 */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/destination/destination.h"
#include "migrate/guest.h"
#include "migrate/inspect.h"
#include "migrate/source/source.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

#define PAGES_0 300u
#define PAGES_1 70u

struct fake {
	struct guest guest; /* first */
	struct tree tree;
	uint32_t value; /* its whole state */
	bool loaded;
	unsigned int parks, unparks;
	int cancel_at_touch; /* an eventfd to signal, or -1 */
};

static char dir[] = "/tmp/godwit-test-XXXXXX";
static char path[64];

static int fake_touched(struct guest *g, unsigned int block, uint64_t first, uint64_t n,
			uint64_t *touched, struct err *e)
{
	struct fake *f = (struct fake *)g;
	uint64_t i;

	(void)e;
	(void)block;
	for (i = 0; i < n; i++)
		if ((first + i) % 3) /* every third page was never touched */
			bitmap_set(touched, i);
	if (f->cancel_at_touch >= 0)
		eventfd_write(f->cancel_at_touch, 1);
	return 0;
}

static int fake_save(struct guest *g, struct tree *states, struct err *e)
{
	if (tree_init(states, e))
		return -1;
	return tree_set_u32(states, "/vm", "value", ((struct fake *)g)->value, e);
}

static int fake_park(struct guest *g, struct err *e)
{
	(void)e;
	((struct fake *)g)->parks++;
	return 0;
}

static int fake_unpark(struct guest *g, struct err *e)
{
	(void)e;
	((struct fake *)g)->unparks++;
	return 0;
}

static void fake_sync_begin(struct guest *g)
{
	(void)g;
}

static int fake_sync_done(struct guest *g, struct err *e)
{
	(void)g;
	(void)e;
	return 1;
}

static bool fake_ran(struct guest *g)
{
	(void)g;
	return true;
}

static int fake_load(struct guest *g, const struct tree *states, uint64_t advance_ns, struct err *e)
{
	struct fake *f = (struct fake *)g;

	ck_assert_uint_eq(advance_ns, 0); /* time stood still */
	f->loaded = true;
	return tree_u32(states, "/vm", "value", &f->value, e);
}

static const struct guest_ops fake_ops = {
	.touched = fake_touched,
	.park = fake_park,
	.unpark = fake_unpark,
	.sync_begin = fake_sync_begin,
	.sync_done = fake_sync_done,
	.ran = fake_ran,
	.states_save = fake_save,
	.states_load = fake_load,
};

static struct fake *new_fake(void)
{
	static const uint64_t pages[] = { PAGES_0, PAGES_1 };
	struct fake *f = calloc(1, sizeof(*f));
	unsigned int i;

	ck_assert_int_eq(tree_init(&f->tree, NULL), 0);
	tree_set_str(&f->tree, "/", "label", "fake", NULL);
	tree_pack(&f->tree);
	f->cancel_at_touch = -1;
	f->guest.ops = &fake_ops;
	f->guest.tree = &f->tree;
	f->guest.n_blocks = 2;
	for (i = 0; i < 2; i++) {
		f->guest.blocks[i].pages = pages[i];
		f->guest.blocks[i].host = aligned_alloc(PAGE_SIZE, pages[i] * PAGE_SIZE);
		memset(f->guest.blocks[i].host, 0, pages[i] * PAGE_SIZE);
	}
	return f;
}

static void free_fake(struct fake *f)
{
	free(f->guest.blocks[0].host);
	free(f->guest.blocks[1].host);
	tree_free(&f->tree);
	free(f);
}

/* Touched pages hold numbers, but each fifth of them zeros. */
static struct fake *full_fake(void)
{
	struct fake *f = new_fake();
	unsigned int b;
	uint64_t i, j;

	f->value = 42;
	for (b = 0; b < 2; b++)
		for (i = 0; i < f->guest.blocks[b].pages; i++)
			for (j = 0; i % 3 && i % 5 && j < PAGE_SIZE / 8; j++)
				((uint64_t *)(void *)f->guest.blocks[b].host)[i * 512 + j] =
					(i * 512 + j + b) * 0x9e3779b97f4a7c15ull;
	return f;
}

static int save(struct fake *f, struct stats *stats, struct err *e)
{
	static struct source_limits limits;
	const struct source_job job = {
		.guest = &f->guest,
		.n_lanes = 1,
		.cold = true,
		.stop_fd = f->cancel_at_touch,
		.limits = &limits,
		.stats = stats,
	};
	struct source *s;
	struct channel *ch;
	int rc;

	if (file_channel_create(&ch, path, e))
		return -1;
	s = source_new(&job, e);
	rc = source_run(s, ch, e);
	source_free(s);
	channel_close(ch);
	return rc ? -1 : 0;
}

static int load(struct fake *f, struct err *e)
{
	struct stats stats = { 0 };
	struct destination d;
	struct channel *ch;
	struct err ours;
	struct tree t;
	int rc;

	e = e ? e : &ours;
	if (file_channel_open(&ch, path, e) || destination_open(&d, ch, true, -1, &t, e))
		return -1;
	tree_free(&t);
	rc = destination_receive(&d, &f->guest, &stats, e);
	destination_free(&d);
	return rc;
}

static void setup(void)
{
	snprintf(dir, sizeof(dir), "/tmp/godwit-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/saved", dir);
}

static void teardown(void)
{
	unlink(path);
	ck_assert_msg(rmdir(dir) == 0, "something was left in %s", dir);
}

static uint8_t *contents(size_t *len)
{
	struct stat st;
	uint8_t *bytes;
	int fd = open(path, O_RDONLY);

	ck_assert(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size);
	ck_assert_int_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*len = (size_t)st.st_size;
	return bytes;
}

static void set_contents(const uint8_t *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);

	ck_assert(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
	close(fd);
}

START_TEST(loaded_machine_equals_saved_machine)
{
	struct fake *f = full_fake(), *g = new_fake();
	struct stats p = { 0 };
	struct err e;

	ck_assert_msg(save(f, &p, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(p.total_pages, PAGES_0 + PAGES_1);
	ck_assert_uint_eq(p.remaining_pages, 0);
	ck_assert_msg(load(g, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(g->value, 42);
	ck_assert_mem_eq(g->guest.blocks[0].host, f->guest.blocks[0].host, PAGES_0 * PAGE_SIZE);
	ck_assert_mem_eq(g->guest.blocks[1].host, f->guest.blocks[1].host, PAGES_1 * PAGE_SIZE);
	free_fake(f);
	free_fake(g);
}
END_TEST

START_TEST(untouched_and_zero_pages_take_no_space_and_data_is_page_aligned)
{
	struct fake *f = full_fake();
	struct stats p = { 0 };
	uint64_t expected = 0, i;
	unsigned int b;
	uint8_t *bytes;
	size_t len, at;

	for (b = 0; b < 2; b++)
		for (i = 0; i < f->guest.blocks[b].pages; i++)
			expected += i % 3 && i % 5;
	ck_assert_int_eq(save(f, &p, NULL), 0);
	ck_assert_uint_eq(p.normal_pages, expected);
	bytes = contents(&len);
	ck_assert_uint_lt(len, (expected + 16) * PAGE_SIZE);
	/* Page 1 of block 0 is the first one that is written. */
	for (at = 0; at < len; at += PAGE_SIZE)
		if (!memcmp(bytes + at, f->guest.blocks[0].host + PAGE_SIZE, PAGE_SIZE))
			break;
	ck_assert_uint_lt(at, len);
	free(bytes);
	free_fake(f);
}
END_TEST

START_TEST(every_truncation_is_refused)
{
	struct fake *f = full_fake(), *g = new_fake();
	struct stats p = { 0 };
	uint8_t *bytes;
	struct err e;
	size_t len, at;

	ck_assert_int_eq(save(f, &p, NULL), 0);
	bytes = contents(&len);
	for (at = 0; at < len; at += at < 1000 || at > len - 1000 ? 1 : 4093) {
		ck_assert_int_eq(truncate(path, (off_t)at), 0);
		g->loaded = false;
		ck_assert_msg(load(g, &e) == -1 && !g->loaded, "taken with %zu bytes", at);
		set_contents(bytes, len);
	}
	free(bytes);
	free_fake(f);
	free_fake(g);
}
END_TEST

START_TEST(every_flipped_bit_is_refused_or_harmless)
{
	struct fake *f = full_fake(), *g = new_fake();
	struct stats p = { 0 };
	uint8_t *bytes, flipped;
	size_t len, at, refused = 0, tried = 0;
	int fd;

	ck_assert_int_eq(save(f, &p, NULL), 0);
	bytes = contents(&len);
	fd = open(path, O_WRONLY);
	for (at = 0; at < len; at += at < 600 || at > len - 600 ? 1 : 997) {
		flipped = bytes[at] ^ (uint8_t)(1u << at % 8);
		ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
		g->loaded = false;
		tried++;
		if (load(g, NULL)) {
			refused++;
			ck_assert(!g->loaded);
		} else { /* in the padding */
			ck_assert_uint_eq(bytes[at], 0);
			ck_assert_mem_eq(g->guest.blocks[0].host, f->guest.blocks[0].host,
					 PAGES_0 * PAGE_SIZE);
		}
		ck_assert_int_eq(pwrite(fd, bytes + at, 1, (off_t)at), 1);
	}
	close(fd);
	ck_assert_uint_gt(refused * 2, tried);
	free(bytes);
	free_fake(f);
	free_fake(g);
}
END_TEST

START_TEST(foreign_and_newer_files_are_named_as_such)
{
	static const uint8_t text[] = "#!/bin/sh\necho this is something else, and long enough\n";
	struct hello h = { .version = STREAM_VERSION + 1,
			   .role = ROLE_MAIN,
			   .page_bytes = PAGE_SIZE,
			   .lanes = 1 };
	uint8_t body[HELLO_BYTES];
	struct fake *g = new_fake();
	struct channel *ch;
	struct writer w;
	struct err e;

	set_contents(text, sizeof(text));
	ck_assert_int_eq(load(g, &e), -1);
	ck_assert_msg(strstr(e.text, "not a godwit stream"), "%s", e.text);
	unlink(path);

	ck_assert_int_eq(file_channel_create(&ch, path, &e), 0);
	w = (struct writer){ .channel = ch };
	hello_encode(&h, body);
	ck_assert_int_eq(writer_record(&w, RECORD_HELLO, body, sizeof(body), NULL, 0, &e), 0);
	ck_assert_int_eq(channel_finish(ch, &e), 0);
	channel_close(ch);
	ck_assert_int_eq(load(g, &e), -1);
	ck_assert_msg(
		strstr(e.text,
		       "made by a newer godwit (stream version 3, this one reads versions 1 to 2)"),
		"%s", e.text);
	free_fake(g);
}
END_TEST

/* HELLO and MACHINE, as this host would write them. */
static void begin_stream(struct writer *w, const struct fake *f)
{
	struct hello h = {
		.version = STREAM_VERSION, .role = ROLE_MAIN, .page_bytes = PAGE_SIZE, .lanes = 1
	};
	uint8_t body[HELLO_BYTES];
	struct utsname u;

	ck_assert_int_eq(uname(&u), 0);
	memcpy(h.arch, u.machine, strnlen(u.machine, sizeof(h.arch) - 1));
	hello_encode(&h, body);
	ck_assert_int_eq(writer_record(w, RECORD_HELLO, body, sizeof(body), NULL, 0, NULL), 0);
	ck_assert_int_eq(writer_record(w, RECORD_MACHINE, f->tree.fdt, tree_bytes_used(&f->tree),
				       NULL, 0, NULL),
			 0);
}

START_TEST(pages_outside_the_machine_are_refused)
{
	static const struct {
		uint32_t block;
		uint64_t first, n;
	} wrong[] = { { 2, 0, 1 }, { 0, PAGES_0, 1 }, { 0, PAGES_0 - 1, 2 }, { 1, ~0ull, 1 } };
	uint8_t body[PAGES_HEAD_BYTES + RUN_BYTES] = { 0 }, page[2 * PAGE_SIZE] = { 0 };
	unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct iovec data = { page, wrong[i].n * PAGE_SIZE };
		struct fake *g = new_fake();
		struct writer w = { 0 };
		struct err e;

		put_u32(body, wrong[i].block);
		put_u32(body + 4, CODEC_PLAIN);
		put_u32(body + 8, 1);
		put_u64(body + 16, wrong[i].first);
		put_u64(body + 24, wrong[i].n);
		ck_assert_int_eq(file_channel_create(&w.channel, path, &e), 0);
		begin_stream(&w, g);
		ck_assert_int_eq(writer_record(&w, RECORD_PAGES, body, sizeof(body), &data, 1, &e),
				 0);
		ck_assert_int_eq(channel_finish(w.channel, &e), 0);
		channel_close(w.channel);
		ck_assert_int_eq(load(g, &e), -1);
		ck_assert_msg(strstr(e.text, "memory block"), "%s", e.text);
		free_fake(g);
	}
}
END_TEST

/* What a saved machine begins with. */
static const uint8_t older[RECORD_HEAD_BYTES + HELLO_BYTES] = {
	[0] = RECORD_HELLO, [RECORD_HEAD_BYTES] = 'G', 'O', 'D', 'W', 'I', 'T', '\r', '\n'
};

static unsigned int files_in_dir(void)
{
	DIR *d = opendir(dir);
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

START_TEST(failed_save_leaves_the_old_file_and_nothing_else)
{
	struct rlimit limit, before;
	struct fake *f = full_fake();
	struct stats p = { 0 }, q = { 0 };
	uint8_t *bytes;
	struct err e;
	size_t len;

	set_contents(older, sizeof(older));
	f->cancel_at_touch = eventfd(0, 0);
	ck_assert_int_eq(save(f, &p, &e), -1);
	ck_assert_str_eq(e.text, "cancelled");
	ck_assert(f->parks == 1 && f->unparks == 1);
	close(f->cancel_at_touch);
	f->cancel_at_touch = -1;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 100000;
	setrlimit(RLIMIT_FSIZE, &limit);
	ck_assert_int_eq(save(f, &q, &e), -1);
	setrlimit(RLIMIT_FSIZE, &before);
	ck_assert_msg(strstr(e.text, "cannot write"), "%s", e.text);

	bytes = contents(&len);
	ck_assert(len == sizeof(older) && !memcmp(bytes, older, len));
	ck_assert_uint_eq(files_in_dir(), 1);
	free(bytes);
	free_fake(f);
}
END_TEST

START_TEST(what_follows_the_end_is_refused)
{
	struct fake *f = full_fake(), *g = new_fake();
	struct stats p = { 0 };
	struct channel *ch;
	uint8_t *bytes, *more;
	struct err e;
	size_t len;

	ck_assert_msg(save(f, &p, &e) == 0, "%s", e.text);
	bytes = contents(&len);
	more = malloc(2 * len);
	memcpy(more, bytes, len);
	memcpy(more + len, bytes, len);
	if (_i == 0) { /* a second END, numbered as the one that it follows */
		memcpy(more + len, bytes + len - RECORD_HEAD_BYTES, RECORD_HEAD_BYTES);
		set_contents(more, len + RECORD_HEAD_BYTES);
	} else {
		set_contents(more, _i == 1 ? len + 1 : 2 * len);
	}
	ck_assert_int_eq(load(g, &e), -1);
	ck_assert_msg(strstr(e.text, "something follows the end"), "%s", e.text);
	ck_assert_int_eq(file_channel_open(&ch, path, &e), 0);
	ck_assert_int_eq(inspect_stream(ch, INSPECT_PAGES, fopen("/dev/null", "w"), &e), -1);
	ck_assert_msg(strstr(e.text, "something follows the end"), "%s", e.text);
	channel_close(ch);
	free(bytes);
	free(more);
	free_fake(f);
	free_fake(g);
}
END_TEST

START_TEST(a_place_that_cannot_hold_a_file_is_refused)
{
	char inside[128];
	struct channel *ch;
	struct err e;

	ck_assert_int_eq(file_channel_create(&ch, dir, &e), -1);
	ck_assert_msg(strstr(e.text, "is a directory, not a regular file"), "%s", e.text);
	snprintf(inside, sizeof(inside), "%s/missing/file", dir);
	ck_assert_int_eq(file_channel_create(&ch, inside, &e), -1);
	ck_assert_msg(strstr(e.text, "cannot open its directory"), "%s", e.text);
	snprintf(inside, sizeof(inside), "%s/", dir);
	ck_assert_int_eq(file_channel_create(&ch, inside, &e), -1);
	ck_assert_int_eq(file_channel_open(&ch, dir, &e), -1);
	ck_assert_msg(strstr(e.text, "is a directory"), "%s", e.text);
}
END_TEST

START_TEST(inspect_tells_what_is_in_the_file)
{
	static const enum inspect_what what[] = { INSPECT_SUMMARY, INSPECT_TREE, INSPECT_STATES,
						  INSPECT_PAGES };
	static const char *const expected[] = { "name:    fake", "label = \"fake\"",
						"value = <0x2a>", "block 1 page 0x1 + 2" };
	struct stats p = { 0 };
	struct fake *f = full_fake();
	unsigned int i;

	ck_assert_int_eq(save(f, &p, NULL), 0);
	for (i = 0; i < 4; i++) {
		struct channel *ch;
		char *text;
		size_t len;
		FILE *out = open_memstream(&text, &len);

		ck_assert_int_eq(file_channel_open(&ch, path, NULL), 0);
		ck_assert_int_eq(inspect_stream(ch, what[i], out, NULL), 0);
		channel_close(ch);
		fclose(out);
		ck_assert_msg(strstr(text, expected[i]), "%s", text);
		free(text);
	}
	free_fake(f);
}
END_TEST

START_TEST(inspect_prints_nothing_that_would_upset_a_terminal)
{
	static const char evil[] = "\033]0;owned\a\033[2J\r\n\177";
	struct stats p = { 0 };
	struct fake *f = full_fake();
	unsigned int i;

	tree_set_str(&f->tree, "/", "label", evil, NULL);
	tree_set_str(&f->tree, "/devices/disk0", "model", evil, NULL);
	tree_set_str(&f->tree, "/host/disk0", "path", evil, NULL);
	tree_set_str(&f->tree, "/host/boot", "kernel", evil, NULL);
	tree_pack(&f->tree);
	ck_assert_int_eq(save(f, &p, NULL), 0);
	for (i = INSPECT_SUMMARY; i <= INSPECT_PAGES; i++) {
		struct channel *ch;
		char *text, *at;
		size_t len;
		FILE *out = open_memstream(&text, &len);

		ck_assert_int_eq(file_channel_open(&ch, path, NULL), 0);
		ck_assert_int_eq(inspect_stream(ch, i, out, NULL), 0);
		channel_close(ch);
		fclose(out);
		for (at = text; *at; at++)
			ck_assert_msg((*at >= ' ' && *at < 0x7f) || *at == '\n' || *at == '\t',
				      "%s", text);
		free(text);
	}
	free_fake(f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("snapshot");
	TCase *c = tcase_create("snapshot");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, loaded_machine_equals_saved_machine);
	tcase_add_test(c, untouched_and_zero_pages_take_no_space_and_data_is_page_aligned);
	tcase_add_test(c, every_truncation_is_refused);
	tcase_add_test(c, every_flipped_bit_is_refused_or_harmless);
	tcase_add_test(c, foreign_and_newer_files_are_named_as_such);
	tcase_add_test(c, pages_outside_the_machine_are_refused);
	tcase_add_test(c, failed_save_leaves_the_old_file_and_nothing_else);
	tcase_add_loop_test(c, what_follows_the_end_is_refused, 0, 3);
	tcase_add_test(c, a_place_that_cannot_hold_a_file_is_refused);
	tcase_add_test(c, inspect_tells_what_is_in_the_file);
	tcase_add_test(c, inspect_prints_nothing_that_would_upset_a_terminal);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
