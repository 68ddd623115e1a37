/*
 * Rights: what the process gives up once a machine has been built and before any thread starts.
 */
#ifndef GODWIT_SANDBOX_H
#define GODWIT_SANDBOX_H

#include <sys/types.h>

struct err;

/* The user that --user names; to be looked up before anything is set up. */
struct sandbox_user {
	uid_t uid;
	gid_t gid;
};

int sandbox_find_user(const char *name, struct sandbox_user *out, struct err *e);

/*
 * For good: no capability, an empty bounding set, no new privileges through exec; and the identity
 * of `user` without supplementary groups, if not NULL. On -1 the process must not go on.
 */
int sandbox_enter(const struct sandbox_user *user, struct err *e);

#endif
