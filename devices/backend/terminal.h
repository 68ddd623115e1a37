/*
 * The person's terminal while it is a guest's console: raw mode from when the guest first runs,
 * restored when it ends, and the commands that begin with Ctrl-A. I/O thread, or before it runs.
 */
#ifndef GODWIT_TERMINAL_H
#define GODWIT_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

struct terminal {
	int fd;
	bool raw;	 /* `saved` is to be put back */
	bool escape;	 /* the last byte was Ctrl-A */
	bool quit, help; /* asked for by terminal_filter(); the caller clears them */
	struct termios saved;
};

extern const char terminal_help[];

/* `fd` is a terminal; nothing is changed yet. */
void terminal_open(struct terminal *t, int fd);
/* Puts it into raw mode if it is not, unless this process runs in its background. */
void terminal_make_raw(struct terminal *t);
/* Notes how `fd` is set, if it is a terminal, for the case that another process leaves it raw. */
void terminal_keep(struct terminal *t, int fd);
/* Puts back what terminal_make_raw() has changed, or all that terminal_keep() has noted. */
void terminal_close(struct terminal *t);

/* Whether reading from it is allowed now: a background process would be stopped for it. */
bool terminal_is_ours(const struct terminal *t);

/* Takes the commands out of `len` typed bytes, in place; returns how many are for the guest. */
size_t terminal_filter(struct terminal *t, uint8_t *bytes, size_t len);

#endif
