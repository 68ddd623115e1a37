/*
 * How many migrations leave this host at once, over all VMs that share a runtime directory: a file
 * of slots there, each locked by the migration that has it. A lock belongs to an open file
 * description, so it ends with its process however that ends; the slot's content is only the name
 * for those who wait.
 *
 *     byte 0            shared lock: uses the file      exclusive: removes it
 *     byte 1            exclusive: counts and takes
 *     128 * (1 + slot)  exclusive: a migration; there: the VM's name, zeros
 *
 * The file is opened while the process may, and removed by the last VM that has used it.
 */
#ifndef GODWIT_MIGRATE_SLOTS_H
#define GODWIT_MIGRATE_SLOTS_H

#include <stddef.h>

struct err;

#define SLOTS_MAX      64
#define SLOTS_VM_BYTES 65 /* of a VM's name, with the zero at the end */

struct slots {
	int fd;	  /* -1: none */
	int held; /* slot, -1: none */
	char path[256], vm[SLOTS_VM_BYTES];
};

/* In the directory `dir`, for the migrations of the VM called `vm`. On -1 it is as if closed. */
int slots_open(struct slots *s, const char *dir, const char *vm, struct err *e);

/* Also lets go of the slot. Nothing when it is closed already. */
void slots_close(struct slots *s);

/*
 * Takes a slot if less than `max` (0: no bound) are taken by others. 1: taken, or no bound and no
 * slot free. 0: not now; `names` are those who have them ("a, b"). -1: locks do not work there.
 */
int slots_take(struct slots *s, unsigned int max, char *names, size_t size, struct err *e);

/* Nothing when none is held. */
void slots_release(struct slots *s);

/* Removes the file of a directory if nobody uses it: for who has the right when a VM has not. */
void slots_remove_unused(const char *dir);

#endif
