/*
 * A client of a control socket that sends raw bytes. Included by one file of a test program, behind
 * fake_vm.h.
 */
#ifndef GODWIT_TESTS_QMP_CLIENT_H
#define GODWIT_TESTS_QMP_CLIENT_H

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 10 };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* The next line, without its end; NULL at the end of the connection. */
static char *hear_line(int fd)
{
	static char line[1 << 16];
	char *newline = NULL;
	size_t n = 0;

	/* Looks first, then takes no more than the line. */
	while (!newline && n < sizeof(line)) {
		ssize_t got = recv(fd, line + n, sizeof(line) - n, MSG_PEEK);

		ck_assert_msg(got >= 0 || errno == ECONNRESET, "no answer: %s", strerror(errno));
		if (got <= 0)
			return NULL;
		newline = memchr(line + n, '\n', (size_t)got);
		if (newline)
			got = newline + 1 - (line + n);
		ck_assert_int_eq(recv(fd, line + n, (size_t)got, 0), got);
		n += (size_t)got;
	}
	ck_assert(n >= 2 && line[n - 2] == '\r');
	line[n - 2] = '\0';
	for (size_t i = 0; i < n - 2; i++)
		ck_assert_msg(line[i] >= ' ', "not in ASCII: %s", line);
	return line;
}

/* As an object. */
static json_t *hear(int fd)
{
	const char *line = hear_line(fd);
	json_t *o = line ? json_loads(line, JSON_ALLOW_NUL, NULL) : NULL;

	ck_assert_msg(o || !line, "not JSON: %s", line);
	return o;
}

static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Negotiated. */
static int dial_qmp(const char *path)
{
	int fd = dial(path);

	json_decref(hear(fd));
	say(fd, "{\"execute\":\"qmp_capabilities\"}\n");
	json_decref(hear(fd));
	return fd;
}

#endif
