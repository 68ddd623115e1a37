/*
 * The machine's own control commands: query-version query-status query-name query-cpus-fast stop
 * cont system_reset system_powerdown quit.
 */
#ifndef GODWIT_CONTROL_COMMANDS_H
#define GODWIT_CONTROL_COMMANDS_H

#include "vmm/control/server.h"

/* The context of the table is the struct machine. */
extern const struct control_command machine_commands[];

#endif
