/*
 * Who connects to a destination, until he has said who he is. Each is heard on a thread of his own,
 * so one who says nothing, or half a word, keeps nobody else waiting.
 */
#ifndef GODWIT_MIGRATE_CALLERS_H
#define GODWIT_MIGRATE_CALLERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"
#include "vmm/base/err.h"
#include "vmm/tree.h"

/* With one more, whoever has been silent for longest is sent away. */
#define CALLERS_MAX 16

/* What another source is told. */
#define CALLERS_BUSY "another guest is just coming in here"

/* What one has said: taken over by whoever gets it from callers_next. */
struct heard {
	struct reader reader; /* of his connection */
	struct hello hello;
	struct tree machine; /* only where it was waited for */
};

struct caller {
	struct callers *all;
	bool there; /* the slot is in use */
	uint64_t since_us;
	pthread_t thread;
	bool spoken; /* under lock: the thread is done; then: */
	bool probe;  /* he has measured the link, and wants no more */
	int rc;
	struct heard heard;
	struct err why;
};

/* One thread uses it; constant but for the callers. */
struct callers {
	int listen_fd, stop_fd;
	int hello_ms;	   /* how long each may take */
	bool with_machine; /* MACHINE is waited for too, and who begins no migration sent away */
	int told_fd;	   /* eventfd: one has spoken */
	pthread_mutex_t lock;
	struct caller caller[CALLERS_MAX];
};

int callers_init(struct callers *cs, int listen_fd, int stop_fd, int hello_ms, bool with_machine,
		 struct err *e);

/*
 * Who only measures the link (probe.h) is answered on his own thread meanwhile, and gone then.
 *
 * The next one who has said what he must, within `timeout_ms` (-1: for ever). Others are sent away
 * on the way, with the reason if they speak in records, and a line in the log. -1 when stopped, or
 * in time nobody came.
 */
int callers_next(struct callers *cs, int timeout_ms, struct heard *out, struct err *e);

/* Those who have not been heard are sent away. */
void callers_free(struct callers *cs);

/* Ends a connection that was heard: told why, or without a word (NULL). */
void heard_dismiss(struct heard *h, const char *why);

/* HELLO, which every connection begins with. */
int caller_hello(struct reader *r, struct hello *hello, struct err *e);

/* HELLO and MACHINE, what every stream begins with; `machine` is made. */
int caller_begin(struct reader *r, struct hello *hello, struct tree *machine, struct err *e);

#endif
