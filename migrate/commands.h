/*
 * The control commands of migration: migrate, migrate_cancel, query-migrate. main.c hands the table
 * to the control server; the context is the machine's struct migration.
 */
#ifndef GODWIT_MIGRATE_COMMANDS_H
#define GODWIT_MIGRATE_COMMANDS_H

#include "vmm/control/table.h"

extern const struct control_command migrate_commands[];

#endif
