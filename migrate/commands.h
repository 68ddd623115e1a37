/*
 * The QMP commands of migration, for the control server. Their context is the machine's struct
 * migration.
 */
#ifndef GODWIT_MIGRATE_COMMANDS_H
#define GODWIT_MIGRATE_COMMANDS_H

#include "vmm/control/table.h"

extern const struct control_command migrate_commands[];

#endif
