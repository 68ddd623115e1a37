/*
 * Rights: see sandbox.h. Main thread, while it is the only one: capabilities belong to threads.
 *
 * A machine that has been built needs no capability: /dev/kvm, taps, disks, sockets and the kernel
 * image are open, and guest memory is its own.
 */
#include "vmm/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "vmm/base/err.h"

int sandbox_find_user(const char *name, struct sandbox_user *out, struct err *e)
{
	struct passwd *p;

	errno = 0;
	p = getpwnam(name);
	if (!p && errno && errno != ENOENT)
		return err_errno(e, errno, "cannot look up user '%s'", name);
	if (!p)
		return err_set(e, "there is no user '%s' on this host", name);
	if (geteuid() != 0 && p->pw_uid != geteuid())
		return err_set(e, "only root can run a VM as user '%s'", name);
	out->uid = p->pw_uid;
	out->gid = p->pw_gid;
	return 0;
}

int sandbox_enter(const struct sandbox_user *user, struct err *e)
{
	int rc;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_errno(e, errno, "cannot give up new privileges");
	if (user && geteuid() == 0 && user->uid != 0) {
		capng_clear(CAPNG_SELECT_BOTH);
		rc = capng_change_id((int)user->uid, (int)user->gid,
				     CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING);
		return rc ? err_set(e, "cannot change to user id %u (step %d)",
				    (unsigned int)user->uid, -rc)
			  : 0;
	}
	if (capng_get_caps_process())
		return err_set(e, "cannot read the capabilities of this process");
	/* The bounding set can only be emptied by who has the right to; others cannot gain by it.
	 */
	rc = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	capng_clear(rc ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS);
	if (capng_apply(rc ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS))
		return err_set(e, "cannot give up the capabilities of this process");
	return 0;
}
