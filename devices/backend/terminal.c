/*
 * The person's terminal: see terminal.h. I/O thread. The terminal's own settings are put back by
 * whoever closes it, and never touched from the background, where that would stop the process.
 */
#include "devices/backend/terminal.h"

#include <unistd.h>

#define TERMINAL_ESCAPE 0x01 /* Ctrl-A */

const char terminal_help[] = "\r\n"
			     "Ctrl-A h       this help\r\n"
			     "Ctrl-A x       end the virtual machine at once\r\n"
			     "Ctrl-A Ctrl-A  send Ctrl-A to the guest (also Ctrl-A a)\r\n";

bool terminal_is_ours(const struct terminal *t)
{
	pid_t foreground = tcgetpgrp(t->fd);

	/* No foreground group: it is not our controlling terminal, so there is no job control. */
	return foreground < 0 || foreground == getpgrp();
}

void terminal_open(struct terminal *t, int fd)
{
	*t = (struct terminal){ .fd = fd };
}

void terminal_make_raw(struct terminal *t)
{
	struct termios raw;

	if (t->raw || !terminal_is_ours(t) || tcgetattr(t->fd, &t->saved))
		return;
	raw = t->saved;
	cfmakeraw(&raw);
	/* Messages of godwit itself end lines with \n only; a guest's \r\n is not harmed by it. */
	raw.c_oflag |= OPOST;
	t->raw = !tcsetattr(t->fd, TCSANOW, &raw);
}

void terminal_keep(struct terminal *t, int fd)
{
	*t = (struct terminal){ .fd = fd };
	t->raw = !tcgetattr(fd, &t->saved);
}

void terminal_close(struct terminal *t)
{
	if (t->raw && terminal_is_ours(t))
		tcsetattr(t->fd, TCSANOW, &t->saved);
	t->raw = false;
}

size_t terminal_filter(struct terminal *t, uint8_t *bytes, size_t len)
{
	size_t i, n = 0;

	for (i = 0; i < len; i++) {
		uint8_t b = bytes[i];

		if (!t->escape) {
			if (b == TERMINAL_ESCAPE)
				t->escape = true;
			else
				bytes[n++] = b;
			continue;
		}
		t->escape = false;
		if (b == 'x')
			t->quit = true;
		else if (b == 'h' || b == '?')
			t->help = true;
		else if (b == 'a' || b == TERMINAL_ESCAPE)
			bytes[n++] = TERMINAL_ESCAPE;
	}
	return n;
}
