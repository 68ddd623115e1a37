/*
 * An image in memory behind a disk's operations (devices/backend/disk.h), which fail as a test
 * says. Guarded by its own lock: the test thread and the I/O thread may both use it.
 */
#ifndef GODWIT_TESTS_MEMORY_IMAGE_H
#define GODWIT_TESTS_MEMORY_IMAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/backend/disk.h"

struct memory_image {
	pthread_mutex_t lock;
	uint8_t *bytes;
	size_t size;
	unsigned int asked[DISK_OPS],
		durable; /* operations so far; writes that had to be durable */
	struct memory_fault {
		unsigned int times; /* how often still */
		int errnum;	    /* 0: no error, but short */
		uint32_t most;	    /* bytes that are transferred before */
	} faults[DISK_OPS];
};

/* `d`, which is open and idle, works on memory from here on, with the content of its file. */
void memory_image_attach(struct memory_image *m, struct disk *d);
void memory_image_free(struct memory_image *m);

/* The next `times` operations transfer `most` bytes, then fail with `errnum` (0: are short). */
void memory_image_fail(struct memory_image *m, enum disk_op op, unsigned int times, int errnum,
		       uint32_t most);

unsigned int memory_image_asked(struct memory_image *m, enum disk_op op);
unsigned int memory_image_durable(struct memory_image *m);
bool memory_image_has(struct memory_image *m, uint64_t sector, unsigned int n, int byte);

#endif
