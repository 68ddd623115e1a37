/*
 * A tap interface of the host: frames in and out, each behind a virtio-net header of 12 bytes.
 * Reads and writes are plain and never wait. Any thread.
 */
#ifndef GODWIT_BACKEND_TAP_H
#define GODWIT_BACKEND_TAP_H

struct err;

#define TAP_HEADER_BYTES 12

/* Attaches to an interface that exists; the fd, or -1 with a sentence that names it. */
int tap_open(const char *name, struct err *e);

/* What the kernel may leave to the reader of the fd: TUN_F_* of <linux/if_tun.h>. On -1 errno is
 * EBADFD when the interface was removed. */
int tap_set_offload(int fd, unsigned int flags, struct err *e);

#endif
