/*
 * The host's side of character streams: nothing is lost while both sides read, nobody waits for a
 * reader, and the shell's terminal and pipes are left as they were. The loop runs on its own
 * thread, the test plays the guest and the host's programs.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "devices/backend/chardev.h"
#include "devices/backend/terminal.h"
#include "vmm/base/err.h"
#include "vmm/device.h"
#include "vmm/loop.h"

static struct loop io;
static struct device_env env;
static struct chardev *c;
static char dir[] = "/tmp/chardev-XXXXXX";
static char path[64], spec[80];
static struct err e;

/* The guest's side. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t room, n_input, writable_calls;
static uint8_t input[1 << 20];
static int is_connected = -1, quits;

static size_t guest_room(void *arg)
{
	size_t n;

	(void)arg;
	pthread_mutex_lock(&lock);
	n = room;
	pthread_mutex_unlock(&lock);
	return n;
}

static void guest_input(void *arg, const uint8_t *bytes, size_t len)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	ck_assert_uint_le(len, room);
	memcpy(input + n_input, bytes, len);
	n_input += len;
	room -= len;
	pthread_mutex_unlock(&lock);
}

static void guest_writable(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&writable_calls, 1, __ATOMIC_SEQ_CST);
}

static void guest_connected(void *arg, bool connected)
{
	(void)arg;
	__atomic_store_n(&is_connected, connected, __ATOMIC_SEQ_CST);
}

static struct chardev_ops ops = { .room = guest_room,
				  .input = guest_input,
				  .writable = guest_writable,
				  .connected = guest_connected };

static void request(void *machine, enum machine_request r)
{
	(void)machine;
	if (r == REQUEST_QUIT)
		__atomic_fetch_add(&quits, 1, __ATOMIC_SEQ_CST);
}

static void set_room(size_t n)
{
	pthread_mutex_lock(&lock);
	room = n;
	pthread_mutex_unlock(&lock);
	if (c)
		chardev_input_ready(c);
}

static size_t received(void)
{
	size_t n;

	pthread_mutex_lock(&lock);
	n = n_input;
	pthread_mutex_unlock(&lock);
	return n;
}

#define WAIT_FOR(condition)                                                  \
	do {                                                                 \
		int tries_ = 5000;                                           \
		while (!(condition) && tries_--)                             \
			usleep(1000);                                        \
		ck_assert_msg(tries_ > 0, "did not happen: %s", #condition); \
	} while (0)

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/x", dir);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	ck_assert_int_eq(loop_init(&io, &e), 0);
	env = (struct device_env){ .io = &io, .request = request };
}

static void open_as(const char *what)
{
	ck_assert_msg(!chardev_open(&c, what, &env, &ops, NULL, &e), "%s", e.text);
	ck_assert_int_eq(chardev_resume(c, &e), 0);
	ck_assert_int_eq(loop_start(&io, "io", &e), 0);
}

static void shut(void)
{
	loop_join(&io);
	chardev_close(c);
	c = NULL;
}

static void teardown(void)
{
	if (c)
		shut();
	loop_free(&io);
	unlink(path);
	rmdir(dir);
}

static int client(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	ck_assert_msg(!connect(fd, (struct sockaddr *)&addr, sizeof(addr)), "%s", strerror(errno));
	return fd;
}

static void read_exactly(int fd, void *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)to + done, len - done);

		ck_assert_msg(n > 0, "read: %s", n ? strerror(errno) : "end of file");
		done += (size_t)n;
	}
}

START_TEST(file_keeps_what_it_held_and_gets_all_output)
{
	char text[32] = { 0 };
	FILE *f = fopen(path, "w");

	fputs("what was there before", f);
	fclose(f);
	snprintf(spec, sizeof(spec), "file:%s", path);
	open_as(spec);
	ck_assert_uint_eq(chardev_put(c, "hello", 5), 5);
	shut(); /* at once: the guest's last words are written by close */
	f = fopen(path, "r");
	ck_assert_uint_eq(fread(text, 1, sizeof(text) - 1, f), 26);
	ck_assert_str_eq(text, "what was there beforehello");
	fclose(f);
}
END_TEST

START_TEST(no_byte_is_lost_to_a_slow_reader)
{
	enum { TOTAL = 1 << 20 };
	uint8_t *sent = malloc(TOTAL), *got = malloc(TOTAL);
	size_t done = 0, read_so_far = 0, calls = 0, refused = 0;
	int fd, i;

	for (i = 0; i < TOTAL; i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 9));
	open_as(spec);
	fd = client();
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 1);
	while (done < TOTAL) {
		size_t want = TOTAL - done < 50000 ? TOTAL - done : 50000;
		size_t n = chardev_put(c, sent + done, want);

		done += n;
		if (n == want)
			continue;
		/* Full: it takes nothing until the reader reads, and then says so. */
		refused++;
		while (__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST) == calls) {
			ssize_t r = recv(fd, got + read_so_far, 30000, MSG_DONTWAIT);

			if (r > 0)
				read_so_far += (size_t)r;
			else
				usleep(100);
		}
		calls = __atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST);
	}
	read_exactly(fd, got + read_so_far, TOTAL - read_so_far);
	ck_assert_uint_gt(refused, 1);
	ck_assert_int_eq(memcmp(sent, got, TOTAL), 0);
	close(fd);
	free(sent);
	free(got);
}
END_TEST

START_TEST(output_without_a_client_is_dropped_and_never_blocks)
{
	static uint8_t bytes[CHARDEV_RING_BYTES];
	char got[4];
	int fd, i;

	open_as(spec);
	for (i = 0; i < 10; i++)
		ck_assert_uint_eq(chardev_put(c, bytes, sizeof(bytes)), sizeof(bytes));
	fd = client();
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 1);
	chardev_put(c, "new", 3);
	read_exactly(fd, got, 3);
	ck_assert_int_eq(memcmp(got, "new", 3), 0); /* and nothing of what was before it came */
	close(fd);
}
END_TEST

START_TEST(a_late_client_of_a_console_gets_the_last_lines_that_it_missed)
{
	char line[32], got[32];
	int fd, i;

	ops.is_console = true;
	open_as(spec);
	chardev_put(c, "early\n", 6);
	fd = client();
	read_exactly(fd, got, 6);
	ck_assert_int_eq(memcmp(got, "early\n", 6), 0);
	close(fd);
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 0);
	/* More than is kept: it begins with a whole line, has no gap and ends with the last one. */
	for (i = 0; i < 20000; i++) {
		snprintf(line, sizeof(line), "line %08d\n", i);
		ck_assert_uint_eq(chardev_put(c, line, 14), 14);
	}
	i -= CHARDEV_RING_BYTES / 14;
	fd = client();
	for (; i < 20000; i++) {
		read_exactly(fd, got, 14);
		snprintf(line, sizeof(line), "line %08d\n", i);
		ck_assert_msg(!memcmp(got, line, 14), "%.14s, not %s", got, line);
	}
	chardev_put(c, "> ", 2);
	read_exactly(fd, got, 2);
	close(fd);
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 0);
	/* Nothing twice; and a prompt is no part of a line that is missing. */
	chardev_put(c, "> ", 2);
	fd = client();
	read_exactly(fd, got, 2);
	ck_assert_int_eq(memcmp(got, "> ", 2), 0);
	usleep(20000);
	ck_assert_int_lt(recv(fd, got, 1, MSG_DONTWAIT), 0);
	close(fd);
}
END_TEST

/* Fills pipe and ring, as a guest does that talks and talks. */
static void talk(size_t total)
{
	static uint8_t bytes[4096];
	size_t calls = __atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST), n;

	while (total) {
		n = chardev_put(c, bytes, total < sizeof(bytes) ? total : sizeof(bytes));
		total -= n;
		if (n)
			continue;
		WAIT_FOR(__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST) != calls);
		calls = __atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST);
	}
}

static uint64_t io_ticks_us(void)
{
	struct timespec t;
	clockid_t clock;

	ck_assert_int_eq(pthread_getcpuclockid(io.started, &clock), 0);
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Its ring is not full then, but the guest has not been told of room. */
START_TEST(a_reader_that_takes_a_little_and_then_stands_still_holds_nobody_up)
{
	static uint8_t bytes[4096];
	int out[2], saved_out = dup(1), refused;
	size_t calls;

	ck_assert_int_eq(pipe(out), 0);
	dup2(out[1], 1);
	ops.is_console = true;
	open_as("stdio");
	/* Until pipe and ring are full. */
	for (refused = 0; refused < 20; usleep(1000))
		refused = chardev_put(c, bytes, sizeof(bytes)) ? 0 : refused + 1;
	calls = __atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST);
	read_exactly(out[0], bytes, sizeof(bytes));
	WAIT_FOR(__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST) != calls);
	shut();
	dup2(saved_out, 1);
	close(saved_out);
	close(out[0]);
	close(out[1]);
}
END_TEST

START_TEST(a_consoles_reader_that_stands_still_holds_nobody_up)
{
	int out[2], err[2], saved_out = dup(1), saved_err = dup(2);
	char said[1000] = { 0 }, got[4096];
	uint64_t ticks;
	size_t n, calls;

	ck_assert_int_eq(pipe(out) | pipe(err), 0);
	dup2(out[1], 1);
	dup2(err[1], 2);
	ops.is_console = true;
	open_as("stdio");
	talk(300000); /* held up until it is clear that nobody reads; never again */
	calls = __atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST);
	ticks = io_ticks_us();
	for (n = 0; n < 100; n++) {
		talk(4096);
		usleep(1000);
	}
	ck_assert_uint_eq(__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST), calls);
	ck_assert_uint_lt(io_ticks_us() - ticks, 50000);
	/* It reads again: what is newest comes, and nothing is lost from then on. */
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	for (n = 0; n < 5000 && !strstr(said, "are lost"); n++) {
		while (read(out[0], got, sizeof(got)) > 0)
			;
		fcntl(err[0], F_SETFL, O_NONBLOCK);
		(void)!read(err[0], said + strlen(said), sizeof(said) - 1 - strlen(said));
		usleep(1000);
	}
	ck_assert_ptr_nonnull(strstr(said, "stdio: its reader stands still"));
	ck_assert_ptr_nonnull(strstr(said, "bytes of the guest's output are lost"));
	fcntl(out[0], F_SETFL, 0);
	chardev_put(c, "end", 3);
	read_exactly(out[0], got, 3);
	/* And the end does not wait for it either. */
	talk(300000);
	shut();
	dup2(saved_out, 1);
	dup2(saved_err, 2);
	n = strlen(said);
	(void)!read(err[0], said + n, sizeof(said) - 1 - n);
	ck_assert_ptr_nonnull(strstr(said + n, "bytes of the guest's output are lost"));
}
END_TEST

START_TEST(a_terminal_that_is_gone_takes_no_time_and_holds_nobody_up)
{
	int master, slave, saved_in = dup(0), saved_out = dup(1), i;
	static uint8_t bytes[4096];
	uint64_t ticks;

	signal(SIGHUP, SIG_IGN);
	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	dup2(slave, 0);
	dup2(slave, 1);
	ops.is_console = true;
	set_room(0);
	open_as("stdio");
	ck_assert_int_eq(write(master, "typed", 5), 5);
	usleep(10000);
	close(master);
	chardev_put(c, bytes, sizeof(bytes));
	usleep(10000);
	ticks = io_ticks_us();
	for (i = 0; i < 100; i++) {
		ck_assert_uint_eq(chardev_put(c, bytes, sizeof(bytes)), sizeof(bytes));
		usleep(1000);
	}
	ck_assert_uint_lt(io_ticks_us() - ticks, 50000);
	shut();
	dup2(saved_in, 0);
	dup2(saved_out, 1);
	close(slave);
}
END_TEST

START_TEST(clients_that_no_descriptor_is_left_for_are_turned_away)
{
	struct rlimit before, few;
	uint64_t ticks;
	char byte;
	int fd, fds[3], i;

	open_as(spec);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (i = 0; i < 3; i++)
		fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
	few = before;
	few.rlim_cur = (rlim_t)fds[2] + 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (i = 0; i < 3; i++) {
		struct sockaddr_un addr = { .sun_family = AF_UNIX };

		strcpy(addr.sun_path, path);
		ck_assert_int_eq(connect(fds[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
		ck_assert_int_eq(read(fds[i], &byte, 1), 0);
	}
	ticks = io_ticks_us();
	usleep(100000);
	ck_assert_uint_lt(io_ticks_us() - ticks, 20000);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	fd = client();
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 1);
	close(fd);
	for (i = 0; i < 3; i++)
		close(fds[i]);
}
END_TEST

START_TEST(what_is_made_is_for_its_owner_only)
{
	mode_t before = umask(0);
	struct stat st;

	open_as(spec);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	shut();
	loop_free(&io);
	ck_assert_int_eq(loop_init(&io, &e), 0);
	snprintf(spec, sizeof(spec), "file:%s", path);
	open_as(spec);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	umask(before);
}
END_TEST

START_TEST(a_second_client_waits_for_the_first_to_leave)
{
	int first, second;
	char got[2];

	open_as(spec);
	first = client();
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 1);
	second = client();
	chardev_put(c, "1", 1);
	read_exactly(first, got, 1);
	usleep(20000);
	ck_assert_int_lt(recv(second, got, 1, MSG_DONTWAIT), 0);
	close(first);
	ck_assert_int_eq(write(second, "x", 1), 1);
	set_room(10);
	WAIT_FOR(received() == 1);
	chardev_put(c, "2", 1);
	read_exactly(second, got, 1);
	ck_assert_int_eq(got[0], '2');
	close(second);
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 0);
}
END_TEST

START_TEST(input_waits_for_room_and_survives_the_clients_leaving)
{
	uint8_t sent[3000];
	size_t i;
	int fd, next;

	for (i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 3);
	open_as(spec);
	fd = client();
	ck_assert_int_eq(write(fd, sent, sizeof(sent)), sizeof(sent));
	usleep(20000);
	ck_assert_uint_eq(received(), 0);
	set_room(16);
	WAIT_FOR(received() == 16);
	close(fd);
	usleep(20000);
	ck_assert_uint_eq(received(), 16);
	ck_assert_int_eq(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST), 1);
	set_room(10000);
	WAIT_FOR(received() == sizeof(sent));
	ck_assert_int_eq(memcmp(input, sent, sizeof(sent)), 0);
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 0);
	/* One that left its bytes to a guest that never reads does not keep the next one out. */
	set_room(0);
	fd = client();
	ck_assert_int_eq(write(fd, "old", 3), 3);
	usleep(20000);
	close(fd);
	next = client();
	ck_assert_int_eq(write(next, "new", 3), 3);
	usleep(20000);
	set_room(100);
	WAIT_FOR(received() == sizeof(sent) + 3);
	ck_assert_int_eq(memcmp(input + sizeof(sent), "new", 3), 0);
	close(next);
}
END_TEST

static void pause_it(void *arg)
{
	chardev_pause(arg);
}

static void resume_it(void *arg)
{
	ck_assert_int_eq(chardev_resume(arg, &e), 0);
}

static void depart(void *arg)
{
	chardev_depart(arg);
}

START_TEST(a_client_that_is_let_go_learns_whether_all_it_typed_arrived)
{
	char got[8];
	int fd, reset;

	for (reset = 0; reset < 2; reset++) {
		set_room(100);
		open_as(spec);
		fd = client();
		ck_assert_int_eq(write(fd, "a", 1), 1);
		WAIT_FOR(received() == (size_t)reset + 1);
		loop_call(&io, pause_it, c);
		chardev_put(c, "last", 4);
		if (reset)
			ck_assert_int_eq(write(fd, "b", 1), 1);
		loop_call(&io, depart, c);
		read_exactly(fd, got, 4);
		ck_assert_int_eq(memcmp(got, "last", 4), 0);
		ck_assert_int_eq(read(fd, got, 1), reset ? -1 : 0);
		ck_assert_int_eq(access(path, F_OK), -1);
		close(fd);
		shut();
		loop_free(&io);
		ck_assert_int_eq(loop_init(&io, &e), 0);
	}
}
END_TEST

START_TEST(nothing_is_called_while_paused)
{
	uint8_t bytes[1000] = { 0 };
	int fd;

	open_as(spec);
	fd = client();
	WAIT_FOR(__atomic_load_n(&is_connected, __ATOMIC_SEQ_CST) == 1);
	loop_call(&io, pause_it, c);
	set_room(100);
	while (chardev_put(c, bytes, sizeof(bytes)) == sizeof(bytes))
		;
	ck_assert_int_eq(write(fd, "late", 4), 4);
	while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		usleep(1000);
	usleep(20000);
	ck_assert_uint_eq(received(), 0);
	ck_assert_uint_eq(__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST), 0);
	loop_call(&io, resume_it, c);
	WAIT_FOR(received() == 4);
	WAIT_FOR(__atomic_load_n(&writable_calls, __ATOMIC_SEQ_CST) == 1);
	close(fd);
}
END_TEST

START_TEST(stale_socket_is_replaced_and_a_live_one_refused)
{
	struct chardev *second;
	struct stat st;
	FILE *f;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd); /* leaves the file */
	/* The loop does not run: all is this thread's. */
	ck_assert_msg(!chardev_open(&c, spec, &env, &ops, NULL, &e), "%s", e.text);
	ck_assert_int_eq(chardev_open(&second, spec, &env, &ops, NULL, &e), -1);
	ck_assert_msg(strstr(e.text, "in use by another process"), "%s", e.text);
	ck_assert_int_eq(stat(path, &st), 0);
	chardev_close(c);
	c = NULL;
	ck_assert_int_eq(stat(path, &st), -1); /* removed with it */
	f = fopen(path, "w");
	fclose(f);
	ck_assert_int_eq(chardev_open(&second, spec, &env, &ops, NULL, &e), -1);
	ck_assert_msg(strstr(e.text, "is not a socket"), "%s", e.text);
	ck_assert_int_eq(stat(path, &st), 0);
}
END_TEST

static void *open_elsewhere(void *arg)
{
	return chardev_open(&c, spec, &env, &ops, NULL, arg) ? arg : NULL;
}

START_TEST(stale_socket_is_replaced_only_under_the_lock_of_its_directory)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), locked;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat stale, st;
	pthread_t opener;
	void *failed;

	strcpy(addr.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(stat(path, &stale), 0);
	locked = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(flock(locked, LOCK_EX), 0);
	ck_assert_int_eq(pthread_create(&opener, NULL, open_elsewhere, &e), 0);
	/* Another process may have found it stale as well, and be about to remove it. */
	usleep(20000);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_ino, stale.st_ino);
	close(locked);
	pthread_join(opener, &failed);
	ck_assert_msg(!failed, "%s", e.text);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_ne(st.st_ino, stale.st_ino);
	close(fd);
	chardev_close(c);
	c = NULL;
}
END_TEST

START_TEST(what_is_no_console_is_refused_with_a_sentence)
{
	char longer[200] = "unix:/tmp/";
	static const struct {
		const char *spec, *says;
	} cases[] = {
		{ "tcp:1", "expected stdio, file:PATH, unix:PATH or null" },
		{ "", "expected stdio" },
		{ "file:", "path of a file is empty" },
		{ "file:/", "cannot write there: Is a directory" },
		{ "file:/nowhere/x", "cannot write there: No such file" },
		{ "unix:", "path of a socket is empty" },
		{ "unix:/nowhere/x", "cannot put a socket into /nowhere: No such file" },
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_int_eq(chardev_open(&c, cases[i].spec, &env, &ops, NULL, &e), -1);
		ck_assert_msg(strstr(e.text, cases[i].says), "%s: %s", cases[i].spec, e.text);
	}
	memset(longer + 10, 'x', 150);
	ck_assert_int_eq(chardev_open(&c, longer, &env, &ops, NULL, &e), -1);
	ck_assert_msg(strstr(e.text, "has 155 characters; a socket's path may have 107"), "%s",
		      e.text);
	c = NULL;
}
END_TEST

START_TEST(null_takes_all_and_gives_nothing)
{
	open_as("null");
	ck_assert_uint_eq(chardev_put(c, "hello", 5), 5);
}
END_TEST

START_TEST(stdio_is_a_raw_pipe_and_leaves_the_shells_fds_alone)
{
	int in[2], out[2], saved_in = dup(0), saved_out = dup(1), flags;
	char got[8];

	ck_assert_int_eq(pipe(in) | pipe(out), 0);
	dup2(in[0], 0);
	dup2(out[1], 1);
	flags = fcntl(1, F_GETFL);
	set_room(0);
	open_as("stdio");
	ck_assert_int_eq(write(in[1], "\x01x\n", 3), 3); /* no command: it is no terminal */
	ck_assert_uint_eq(chardev_put(c, "out\n", 4), 4);
	read_exactly(out[0], got, 4);
	ck_assert_int_eq(memcmp(got, "out\n", 4), 0);
	set_room(2);
	WAIT_FOR(received() == 2);
	set_room(2);
	WAIT_FOR(received() == 3);
	ck_assert_int_eq(memcmp(input, "\x01x\n", 3), 0);
	ck_assert_int_eq(quits, 0);
	close(in[1]); /* end of file: output goes on */
	dup2(saved_in, 0);
	usleep(10000);
	chardev_put(c, "more", 4);
	read_exactly(out[0], got, 4);
	ck_assert_int_eq(fcntl(1, F_GETFL), flags);
	/* A reader that leaves: output is dropped, nobody is killed, nobody waits. */
	close(out[0]);
	close(in[0]);
	for (flags = 0; flags < 100; flags++) {
		static uint8_t bytes[4096];

		ck_assert_uint_eq(chardev_put(c, bytes, sizeof(bytes)), sizeof(bytes));
		usleep(1000);
	}
	shut();
	dup2(saved_out, 1);
}
END_TEST

START_TEST(a_socket_may_be_standard_input_and_output)
{
	int ends[2], saved_in = dup(0), saved_out = dup(1);
	char got[4];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	dup2(ends[1], 0);
	dup2(ends[1], 1);
	set_room(100);
	open_as("stdio");
	ck_assert_int_eq(write(ends[0], "in", 2), 2);
	WAIT_FOR(received() == 2);
	/* It blocks for others, and must not for us: nothing more to read, and output goes on. */
	ck_assert_int_eq(fcntl(0, F_GETFL) & O_NONBLOCK, 0);
	chardev_put(c, "out", 3);
	read_exactly(ends[0], got, 3);
	ck_assert_int_eq(memcmp(got, "out", 3), 0);
	shut();
	dup2(saved_in, 0);
	dup2(saved_out, 1);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(a_plain_file_may_be_standard_input)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), saved = dup(0), i;

	for (i = 0; i < 1000; i++)
		ck_assert_int_eq(write(fd, "0123456789", 10), 10);
	lseek(fd, 0, SEEK_SET);
	dup2(fd, 0);
	set_room(0);
	open_as("stdio");
	for (i = 1; i <= 625; i++) {
		set_room(16);
		WAIT_FOR(received() == (size_t)i * 16);
	}
	ck_assert_int_eq(memcmp(input + 9990, "0123456789", 10), 0);
	shut();
	dup2(saved, 0);
	close(fd);
}
END_TEST

START_TEST(terminal_is_raw_and_obeys_ctrl_a_even_if_the_guest_hangs)
{
	struct termios before, t;
	int master, slave, saved_in = dup(0), saved_out = dup(1);
	uint8_t typed[400];
	char got[8];

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, &before);
	dup2(slave, 0);
	dup2(slave, 1);
	set_room(0);
	open_as("stdio");
	tcgetattr(slave, &t);
	ck_assert_uint_eq(t.c_lflag & (ICANON | ECHO | ISIG), 0);
	/* More than is kept for a guest that takes nothing: commands still come through. */
	memset(typed, 'k', sizeof(typed));
	ck_assert_int_eq(write(master, typed, sizeof(typed)), sizeof(typed));
	ck_assert_int_eq(write(master, "\x01", 1), 1);
	usleep(10000);
	ck_assert_int_eq(write(master, "x", 1), 1);
	WAIT_FOR(__atomic_load_n(&quits, __ATOMIC_SEQ_CST) == 1);
	set_room(1000);
	WAIT_FOR(received() == 256);
	ck_assert_int_eq(write(master,
			       "\x01\x01\x01"
			       "a\x01z!",
			       7),
			 7);
	WAIT_FOR(received() == 259);
	ck_assert_int_eq(memcmp(input + 256, "\x01\x01!", 3), 0);
	ck_assert_int_eq(write(master, "\x01h", 2), 2);
	read_exactly(master, got, 8);
	ck_assert_int_eq(memcmp(got, "\r\r\nCtrl-", 8), 0); /* \n becomes \r\n on its way out */
	shut();
	tcgetattr(slave, &t);
	ck_assert_uint_eq(t.c_lflag, before.c_lflag);
	ck_assert_uint_eq(t.c_iflag, before.c_iflag);
	dup2(saved_in, 0);
	dup2(saved_out, 1);
	close(master);
	close(slave);
}
END_TEST

static bool same_settings(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_lflag == b->c_lflag;
}

START_TEST(terminal_is_left_alone_until_the_guest_runs)
{
	struct termios before, t;
	int master, slave, saved_in = dup(0);

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, &before);
	dup2(slave, 0);
	ck_assert_int_eq(chardev_open(&c, "stdio", &env, &ops, NULL, &e), 0);
	tcgetattr(slave, &t);
	ck_assert(same_settings(&t, &before));
	/* What somebody else changes meanwhile stays, for the guest does not come. */
	before.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(slave, TCSANOW, &before);
	chardev_close(c);
	tcgetattr(slave, &t);
	ck_assert(same_settings(&t, &before));
	/* And it is what is put back, if one does. */
	ck_assert_int_eq(chardev_open(&c, "stdio", &env, &ops, NULL, &e), 0);
	before.c_lflag |= ECHO;
	tcsetattr(slave, TCSANOW, &before);
	ck_assert_int_eq(chardev_resume(c, &e), 0);
	tcgetattr(slave, &t);
	ck_assert_uint_eq(t.c_lflag & (ICANON | ECHO | ISIG), 0);
	chardev_pause(c);
	ck_assert_int_eq(chardev_resume(c, &e), 0);
	chardev_close(c);
	c = NULL;
	tcgetattr(slave, &t);
	ck_assert(same_settings(&t, &before));
	dup2(saved_in, 0);
	close(saved_in);
	close(master);
	close(slave);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("chardev");
	TCase *t = tcase_create("chardev");
	SRunner *r = srunner_create(s);
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, file_keeps_what_it_held_and_gets_all_output);
	tcase_add_test(t, no_byte_is_lost_to_a_slow_reader);
	tcase_add_test(t, output_without_a_client_is_dropped_and_never_blocks);
	tcase_add_test(t, a_late_client_of_a_console_gets_the_last_lines_that_it_missed);
	tcase_add_test(t, a_consoles_reader_that_stands_still_holds_nobody_up);
	tcase_add_test(t, a_reader_that_takes_a_little_and_then_stands_still_holds_nobody_up);
	tcase_add_test(t, a_terminal_that_is_gone_takes_no_time_and_holds_nobody_up);
	tcase_add_test(t, clients_that_no_descriptor_is_left_for_are_turned_away);
	tcase_add_test(t, what_is_made_is_for_its_owner_only);
	tcase_add_test(t, a_second_client_waits_for_the_first_to_leave);
	tcase_add_test(t, input_waits_for_room_and_survives_the_clients_leaving);
	tcase_add_test(t, a_client_that_is_let_go_learns_whether_all_it_typed_arrived);
	tcase_add_test(t, nothing_is_called_while_paused);
	tcase_add_test(t, stale_socket_is_replaced_and_a_live_one_refused);
	tcase_add_test(t, stale_socket_is_replaced_only_under_the_lock_of_its_directory);
	tcase_add_test(t, what_is_no_console_is_refused_with_a_sentence);
	tcase_add_test(t, null_takes_all_and_gives_nothing);
	tcase_add_test(t, stdio_is_a_raw_pipe_and_leaves_the_shells_fds_alone);
	tcase_add_test(t, a_socket_may_be_standard_input_and_output);
	tcase_add_test(t, a_plain_file_may_be_standard_input);
	tcase_add_test(t, terminal_is_raw_and_obeys_ctrl_a_even_if_the_guest_hangs);
	tcase_add_test(t, terminal_is_left_alone_until_the_guest_runs);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
