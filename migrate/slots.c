/*
 * The slots: see slots.h. Any one thread at a time. Invariant: whoever has byte 0 uses the file
 * that is at the path, as nobody removes it then.
 */
#include "migrate/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"

#define SLOT_BYTES 128
#define BYTE_USE   0
#define BYTE_TAKE  1

/* Somebody who removes the file or counts is done in no time. */
#define TRIES	20
#define STEP_MS 5

_Static_assert(SLOTS_VM_BYTES <= SLOT_BYTES, "a name has room in its slot");

static off_t byte_of(int slot)
{
	return (off_t)SLOT_BYTES * (1 + slot);
}

/* F_RDLCK, F_WRLCK or F_UNLCK of one byte; -1 with errno, EAGAIN where another has it. */
static int lock(int fd, short type, off_t byte)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &l);
}

static bool is_other(int error)
{
	return error == EAGAIN || error == EACCES;
}

static int lock_soon(int fd, short type, off_t byte)
{
	for (int i = 0; lock(fd, type, byte); i++) {
		if (!is_other(errno) || i == TRIES)
			return -1;
		poll(NULL, 0, STEP_MS);
	}
	return 0;
}

static bool is_at(int fd, const char *path)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
	       ours.st_ino == there.st_ino;
}

/* The file that is at the path, with its byte 0; -1 with errno. */
static int open_used(const char *path)
{
	for (int i = 0; i < TRIES; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), why;

		if (fd < 0)
			return -1;
		if (lock_soon(fd, F_RDLCK, BYTE_USE) == 0 && is_at(fd, path))
			return fd;
		why = errno;
		/* It was removed in between, else locks do not work here. */
		if (is_at(fd, path)) {
			close(fd);
			errno = why;
			return -1;
		}
		close(fd);
	}
	errno = EAGAIN;
	return -1;
}

int slots_open(struct slots *s, const char *dir, const char *vm, struct err *e)
{
	*s = (struct slots){ .fd = -1, .held = -1 };
	snprintf(s->vm, sizeof(s->vm), "%s", vm);
	if ((size_t)snprintf(s->path, sizeof(s->path), "%s/migrations", dir) >= sizeof(s->path))
		return err_set(e, "the directory's name '%.60s...' is too long", dir);
	s->fd = open_used(s->path);
	return s->fd < 0 ? err_errno(e, errno, "cannot use the file %s", s->path) : 0;
}

/*
 * While byte 0 is ours alone nobody else can come to use it. Our share of it goes first: of two who
 * leave at the same time, each with a share, neither would be alone.
 */
static void remove_if_alone(int fd, const char *path)
{
	lock(fd, F_UNLCK, BYTE_USE);
	if (lock(fd, F_WRLCK, BYTE_USE) == 0 && is_at(fd, path))
		unlink(path);
}

void slots_close(struct slots *s)
{
	if (s->fd < 0)
		return;
	slots_release(s);
	remove_if_alone(s->fd, s->path);
	close(s->fd);
	s->fd = -1;
}

void slots_remove_unused(const char *dir)
{
	char path[256];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/migrations", dir) >= sizeof(path))
		return;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	remove_if_alone(fd, path);
	close(fd);
}

/* 1: another migration has the slot; 0: nobody; -1 with errno. */
static int is_taken(int fd, int slot)
{
	struct flock l = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte_of(slot), .l_len = 1
	};

	if (fcntl(fd, F_OFD_GETLK, &l))
		return -1;
	return l.l_type != F_UNLCK;
}

/* Another VM's word: neither its length nor its letters are believed. */
static void add_name(int fd, int slot, char *names, size_t size)
{
	char name[SLOTS_VM_BYTES] = "", shown[SLOTS_VM_BYTES];
	size_t n = strlen(names);

	if (pread(fd, name, sizeof(name) - 1, byte_of(slot)) < 0)
		name[0] = '\0';
	word_printable(shown, sizeof(shown), name[0] ? name : "another VM");
	snprintf(names + n, size - n, "%s%s", n ? ", " : "", shown);
}

/* With byte 1: counts the slots that others have, and finds the first that is free (-1: none). */
static int count(struct slots *s, unsigned int *taken, int *free_slot, char *names, size_t size)
{
	names[0] = '\0';
	*taken = 0;
	*free_slot = -1;
	for (int slot = 0; slot < SLOTS_MAX; slot++) {
		int rc = is_taken(s->fd, slot);

		if (rc < 0)
			return -1;
		if (rc) {
			(*taken)++;
			add_name(s->fd, slot, names, size);
		} else if (*free_slot < 0) {
			*free_slot = slot;
		}
	}
	return 0;
}

static void hold(struct slots *s, int slot)
{
	char name[SLOTS_VM_BYTES] = "";

	s->held = slot;
	memcpy(name, s->vm, strlen(s->vm));
	/* Without it others wait for "another VM". */
	(void)!pwrite(s->fd, name, sizeof(name), byte_of(slot));
}

int slots_take(struct slots *s, unsigned int max, char *names, size_t size, struct err *e)
{
	unsigned int taken;
	int slot, rc = 0;

	if (s->held >= 0)
		return 1;
	if (lock_soon(s->fd, F_WRLCK, BYTE_TAKE)) {
		names[0] = '\0';
		return is_other(errno) ? 0 : err_errno(e, errno, "cannot lock %s", s->path);
	}
	if (count(s, &taken, &slot, names, size))
		rc = err_errno(e, errno, "cannot look at the locks of %s", s->path);
	else if (max && (taken >= max || slot < 0))
		rc = 0;
	else if (slot < 0 || lock(s->fd, F_WRLCK, byte_of(slot)) == 0)
		rc = 1;
	else
		rc = err_errno(e, errno, "cannot lock %s", s->path);
	if (rc > 0 && slot >= 0)
		hold(s, slot);
	lock(s->fd, F_UNLCK, BYTE_TAKE);
	return rc;
}

void slots_release(struct slots *s)
{
	char nobody[SLOTS_VM_BYTES] = "";

	if (s->held < 0)
		return;
	(void)!pwrite(s->fd, nobody, sizeof(nobody), byte_of(s->held));
	lock(s->fd, F_UNLCK, byte_of(s->held));
	s->held = -1;
}
