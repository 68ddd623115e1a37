/*
 * The summary at the end of a migration, with the names of `virsh domjobinfo`. Pure.
 */
#ifndef GODWIT_CLI_SUMMARY_H
#define GODWIT_CLI_SUMMARY_H

#include <stddef.h>

#include "vmm/cli/move/figures.h"

#define SUMMARY_BYTES 2048

/* Lines, each with its newline. */
void summary_write(const struct figures *f, char to[SUMMARY_BYTES]);

#endif
