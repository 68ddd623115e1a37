/*
 * How far a migration is, and who owns the guest: the legal steps of both, in one table each.
 *
 *     none --> setup --> precopy --> switchover --> completed
 *                \          \            \------->  undecided   (after GO, without RUNNING)
 *                 \----------\------------\------>  failed      (the guest goes on at the source)
 *                  \----------\------------\----->  cancelling --> cancelled, failed
 *
 * A migration that comes in goes from precopy to its end. A person ends an undecided one: completed
 * at the destination, failed at the source.
 */
#ifndef GODWIT_MIGRATE_PHASE_H
#define GODWIT_MIGRATE_PHASE_H

#include <stdbool.h>

enum phase {
	PHASE_NONE,
	PHASE_SETUP,
	PHASE_PRECOPY,
	PHASE_SWITCHOVER, /* the guest is parked */
	PHASE_COMPLETED,
	PHASE_FAILED,
	PHASE_CANCELLING,
	PHASE_CANCELLED,
	PHASE_UNDECIDED,
	N_PHASES,
};

/* Who owns the guest. Nobody does from GO on, until the destination has said RUNNING. */
enum owner { OWNER_SOURCE, OWNER_NOBODY, OWNER_DESTINATION, N_OWNERS };

/* What users see: QEMU's MigrationStatus, except "x-godwit-undecided", which QEMU does not know. */
const char *phase_name(enum phase p);

/* Whether a migration in that phase is between its start and its end. */
bool phase_under_way(enum phase p);

/* Takes the step if it is legal; false, with nothing changed, if it is not, or if *now is `to`. */
bool phase_step(enum phase *now, enum phase to);

/* The same for the owner. Stores atomically: any thread may read *now. */
bool phase_hand(enum owner *now, enum owner to);

/* The phase in which a migration ends. `cancelled`: on request, and nothing else went wrong. */
enum phase phase_of_end(enum owner owner, bool cancelled);

#endif
