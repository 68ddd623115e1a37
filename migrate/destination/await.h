/*
 * Waiting for a source, while the process goes on answering at its loop.
 */
#ifndef GODWIT_MIGRATE_AWAIT_H
#define GODWIT_MIGRATE_AWAIT_H

struct destination;
struct door;
struct err;
struct loop;
struct tree;

/*
 * Waits at an open door on a thread of its own, "migrate", and runs the loop meanwhile. 0: a source
 * has come (destination_accept). -1: none has, also if something else has stopped the loop. In any
 * case the thread has ended.
 */
int await_source(struct destination *d, struct door *door, struct loop *loop, struct tree *machine,
		 struct err *e);

#endif
