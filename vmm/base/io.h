/*
 * Whole reads and writes, and numbers with units from text. No state; any thread.
 */
#ifndef GODWIT_BASE_IO_H
#define GODWIT_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/*
 * open(), close-on-exec. With `follow_no_link` it fails (ELOOP) if any part of the path is a link:
 * what is opened then is what the path says, whoever else can write in its directories.
 */
int io_open(const char *path, int flags, mode_t mode, bool follow_no_link);

/* Reads until `len` bytes or end of file; the number of bytes read, or -1 with errno. */
ssize_t io_read_full(int fd, void *buf, size_t len);
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t offset);

/* Writes all of `len` bytes: 0, or -1 with errno. */
int io_write_full(int fd, const void *buf, size_t len);

/*
 * "512", "64K", "256M", "4G", "1T"; "256m", "256MB", "256Mi" and "256MiB" are the same: all binary.
 * -1 with a sentence that quotes the text when it is no such number or does not fit 64 bits.
 */
int parse_size(const char *text, uint64_t *out, struct err *e);

/* A decimal number between min and max, nothing else around it. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *e);

#endif
