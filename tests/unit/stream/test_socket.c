/*
 * A stream over TCP whose other side misbehaves: see migrate/channel/socket.c.
 */
#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"

#define WRITE_BYTES (64u << 20)

static void connect_pair(int fds[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int listening = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(listening, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(listen(listening, 1), 0);
	ck_assert_int_eq(getsockname(listening, (struct sockaddr *)&at, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	connect(fds[0], (struct sockaddr *)&at, sizeof(at));
	fds[1] = accept(listening, NULL, NULL);
	ck_assert_int_ge(fds[1], 0);
	close(listening);
}

/* Its host answers all the while that there is no room: that is no silence. */
START_TEST(program_that_takes_nothing_is_waited_for_longer_than_a_host_that_is_silent)
{
	const int silence_ms = 200, stall_ms = 1500;
	uint64_t start = clock_us();
	struct iovec iov;
	struct channel *ch;
	struct err e;
	int fds[2];

	connect_pair(fds);
	ck_assert_int_eq(socket_channel(&ch, fds[0], "destination", -1, &e), 0);
	socket_set_patience(ch, silence_ms, stall_ms);
	iov = (struct iovec){ calloc(1, WRITE_BYTES), WRITE_BYTES };
	ck_assert_int_eq(channel_write(ch, &(struct iovec){ iov.iov_base, iov.iov_len }, 1, &e),
			 -1);
	ck_assert_uint_ge(clock_us() - start, (uint64_t)stall_ms * 900);
	ck_assert_msg(strstr(e.text, "the other side has taken nothing"), "%s", e.text);
	channel_close(ch);
	close(fds[1]);
	free(iov.iov_base);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("socket");
	TCase *c = tcase_create("socket");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_test(c,
		       program_that_takes_nothing_is_waited_for_longer_than_a_host_that_is_silent);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
