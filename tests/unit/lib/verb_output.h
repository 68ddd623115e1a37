/*
 * Running a verb of the command line with what it prints caught. Included by one file of a test
 * program.
 */
#ifndef GODWIT_TESTS_VERB_OUTPUT_H
#define GODWIT_TESTS_VERB_OUTPUT_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/cli/verb.h"

/* What a verb has printed. */
static char out[16384], err[4096];

static int redirect(int fd, int *saved)
{
	char name[] = "/tmp/godwit-unit-XXXXXX";
	int to = mkstemp(name);

	ck_assert_int_ge(to, 0);
	unlink(name);
	*saved = dup(fd);
	dup2(to, fd);
	return to;
}

static void collect(int fd, int saved, int from, char *text, size_t size)
{
	ssize_t n = pread(from, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	dup2(saved, fd);
	close(saved);
	close(from);
}

/* A verb may have put one of its own in its place (verb_print_patiently). */
static FILE *put_back(FILE *now, FILE *before)
{
	fflush(now);
	if (now != before)
		fclose(now);
	return before;
}

/* Its exit code. */
static int run_verb(const char *name, int argc, char **argv)
{
	const struct verb *v = verb_find(name);
	FILE *before[2] = { stdout, stderr };
	int saved[2], to[2], rc;

	ck_assert_ptr_nonnull(v);
	fflush(stdout);
	to[0] = redirect(1, &saved[0]);
	to[1] = redirect(2, &saved[1]);
	rc = v->run(argc, argv);
	stdout = put_back(stdout, before[0]);
	stderr = put_back(stderr, before[1]);
	collect(1, saved[0], to[0], out, sizeof(out));
	collect(2, saved[1], to[1], err, sizeof(err));
	return rc;
}

#endif
