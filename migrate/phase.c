/* The tables of the legal steps. Pure, but for the store of the owner. */
#include "migrate/phase.h"

static const char *const names[N_PHASES] = {
	[PHASE_NONE] = "none",
	[PHASE_SETUP] = "setup",
	[PHASE_PRECOPY] = "active",
	[PHASE_SWITCHOVER] = "device",
	[PHASE_COMPLETED] = "completed",
	[PHASE_FAILED] = "failed",
	[PHASE_CANCELLING] = "cancelling",
	[PHASE_CANCELLED] = "cancelled",
	[PHASE_UNDECIDED] = "x-godwit-undecided",
};

/*
 * Row: from; column: to. From cancelling no step leads on, only to an end. Cancelling to completed
 * and to undecided: the guest had gone before the cancel could count. Setup to none: the thread
 * could not be started.
 */
static const bool legal[N_PHASES][N_PHASES] = {
	[PHASE_NONE] = { [PHASE_SETUP] = true },
	[PHASE_SETUP] = { [PHASE_NONE] = true,
			  [PHASE_PRECOPY] = true,
			  [PHASE_FAILED] = true,
			  [PHASE_CANCELLING] = true },
	[PHASE_PRECOPY] = { [PHASE_SWITCHOVER] = true,
			    [PHASE_COMPLETED] = true,
			    [PHASE_FAILED] = true,
			    [PHASE_CANCELLING] = true,
			    [PHASE_UNDECIDED] = true },
	[PHASE_SWITCHOVER] = { [PHASE_COMPLETED] = true,
			       [PHASE_FAILED] = true,
			       [PHASE_CANCELLING] = true,
			       [PHASE_UNDECIDED] = true },
	[PHASE_CANCELLING] = { [PHASE_COMPLETED] = true,
			       [PHASE_FAILED] = true,
			       [PHASE_CANCELLED] = true,
			       [PHASE_UNDECIDED] = true },
	/* A guest that has come in can leave again. */
	[PHASE_COMPLETED] = { [PHASE_SETUP] = true },
	[PHASE_FAILED] = { [PHASE_SETUP] = true },
	[PHASE_CANCELLED] = { [PHASE_SETUP] = true },
	[PHASE_UNDECIDED] = { [PHASE_COMPLETED] = true, [PHASE_FAILED] = true },
};

/*
 * The source gives the guest to nobody with GO, and takes it back only if GO was not sent or the
 * destination has said that it will not start it. A file takes it without GO.
 */
static const bool legal_owner[N_OWNERS][N_OWNERS] = {
	[OWNER_SOURCE] = { [OWNER_NOBODY] = true, [OWNER_DESTINATION] = true },
	[OWNER_NOBODY] = { [OWNER_SOURCE] = true, [OWNER_DESTINATION] = true },
};

const char *phase_name(enum phase p)
{
	return names[p];
}

bool phase_under_way(enum phase p)
{
	return p == PHASE_SETUP || p == PHASE_PRECOPY || p == PHASE_SWITCHOVER ||
	       p == PHASE_CANCELLING;
}

bool phase_step(enum phase *now, enum phase to)
{
	if (!legal[*now][to])
		return false;
	*now = to;
	return true;
}

bool phase_hand(enum owner *now, enum owner to)
{
	if (!legal_owner[*now][to])
		return false;
	__atomic_store_n(now, to, __ATOMIC_RELEASE);
	return true;
}

enum phase phase_of_end(enum owner owner, bool cancelled)
{
	switch (owner) {
	case OWNER_DESTINATION:
		return PHASE_COMPLETED;
	case OWNER_NOBODY:
		return PHASE_UNDECIDED;
	default:
		return cancelled ? PHASE_CANCELLED : PHASE_FAILED;
	}
}
