/*
 * What a save may replace: nothing, an empty file, or an older saved machine that nobody uses.
 */
#ifndef GODWIT_MIGRATE_CHANNEL_TARGET_H
#define GODWIT_MIGRATE_CHANNEL_TARGET_H

struct err;

/* 0 if a saved machine may take the place of `name` in `dir_fd`; -1 with a sentence about `path`,
 * which is the same in full. Only looks. */
int target_check(int dir_fd, const char *name, const char *path, struct err *e);

#endif
