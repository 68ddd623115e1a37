/*
 * Where a migration goes to or comes from: tcp:HOST:PORT, unix:PATH, fd:N, file:/PATH. IPv6
 * addresses in brackets.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_URI_H
#define GODWIT_MIGRATE_CHANNEL_URI_H

struct err;

enum uri_kind { URI_TCP, URI_UNIX, URI_FD, URI_FILE };

struct uri {
	enum uri_kind kind;
	char text[512]; /* as given, for messages */
	char host[256]; /* tcp; "" listens everywhere */
	char port[8];	/* tcp; digits, 0 to 65535 */
	char path[256]; /* unix, file */
	int fd;		/* fd */
};

/* Pure. -1 with a sentence that says what was expected. */
int uri_parse(const char *text, struct uri *out, struct err *e);

/*
 * A connected socket (close-on-exec), or -1. `bind_host` (NULL: any) is the local address.
 * `stop_fd` ends the wait. Not for fd: (inherited.h) nor file:.
 */
int uri_connect(const struct uri *u, const char *bind_host, int stop_fd, struct err *e);

/* Whether one can listen there. Pure. */
int uri_check_listen(const struct uri *u, struct err *e);

#endif
