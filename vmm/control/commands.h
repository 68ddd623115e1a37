/*
 * The machine's own control commands: query-version query-status query-name query-cpus-fast stop
 * cont system_reset system_powerdown balloon query-balloon block_resize quit. They run on the
 * thread of the machine's owner.
 */
#ifndef GODWIT_CONTROL_COMMANDS_H
#define GODWIT_CONTROL_COMMANDS_H

#include "vmm/control/table.h"
#include "vmm/machine.h"

struct err;

/*
 * The context of the table. `control` is filled in once the server is open; it gets the events
 * STOP and RESUME of the commands stop and cont. As long as there is no machine, because its guest
 * has not come yet, there is a name, and `quit` for the command; what stop and cont have said of it
 * is in `arrival`, and in the machine if there is one.
 */
struct command_context {
	struct machine *machine;
	struct control *control;
	const char *name;
	void (*quit)(void *arg);
	void *arg;
	enum machine_arrival arrival;
	/* Whether the machine's shape may change: no migration has told it to another host. May be
	 * NULL: it may. */
	int (*check_free)(void *free_arg, struct err *e);
	void *free_arg;
};

extern const struct control_command machine_commands[];

#endif
