/*
 * What a process that runs a VM has from whoever started it: descriptors 0 to 2, signals, and a
 * stderr that may have no reader. Main thread.
 */
#ifndef GODWIT_PROCESS_H
#define GODWIT_PROCESS_H

#include <signal.h>

#include "vmm/loop.h"

struct err;

/*
 * Opens what is missing of descriptors 0, 1 and 2 on /dev/null. Before anything else is opened: it
 * would get such a number, and the guest's console or the log would be written into it.
 */
void process_fill_descriptors(void);

/*
 * Blocks the signals that end a VM and fills `ending` with them; ignores those that would kill it
 * and that nobody sends for that. Before any thread is started, which inherits this.
 */
int process_take_signals(sigset_t *ending, struct err *e);

/* Writes what the log could not write at once, when its reader reads again. */
struct process_log {
	struct loop *loop;
	struct loop_watch watch;
};

/* `loop` is the main thread's; from here on until process_log_end(), which no thread outlives. */
void process_log_begin(struct process_log *l, struct loop *loop);
void process_log_end(struct process_log *l);

#endif
