/*
 * A VM's process: what belongs to it, and how it is run. vm.c is what can happen while it runs,
 * vm_start.c how it comes up and goes down, attendant.c the process that looks after it. All on
 * the main thread.
 *
 * A VM comes up in this order, and each step that fails undoes the ones before it:
 *   name claimed (control socket), machine built, rights given up, threads started, kernel or
 *   saved state loaded, guest running.
 * One that receives waits for its guest between the name and the machine, and can be asked then.
 */
#ifndef GODWIT_VM_H
#define GODWIT_VM_H

#include <stdbool.h>
#include <sys/types.h>

#include "migrate/channel/inherited.h"
#include "migrate/channel/listeners.h"
#include "migrate/destination/destination.h"
#include "migrate/destination/door.h"
#include "migrate/destination/refusals.h"
#include "vmm/config.h"
#include "vmm/control/commands.h"
#include "vmm/control/server.h"
#include "vmm/control/table.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/process.h"

struct migration;

/* How a process ends that was to receive a guest which did not arrive: there is to be another one.
 */
#define VM_EXIT_AGAIN 75

/* What all processes of one `receive` share; made by the first one. */
struct receiver {
	struct listeners listeners;
	char name[LISTENERS_MAX * 64]; /* of them, for messages */
	int passed_on[2];	       /* sockets: see door.h */
	struct {
		struct refusals refusals; /* of connections: any stranger can fill it */
		struct refusals guests;	  /* of guests: a real one is not lost among those */
		bool told;		  /* that one waits */
		enum machine_arrival arrival;
		bool arriving; /* rights are given up, and a guest is coming */
	} * shared;	       /* memory */
};

/* Whose the guest of this process is. */
enum vm_guest {
	VM_GUEST_HERE,	    /* ours: booted here, or arrived */
	VM_GUEST_COMING,    /* its source's, until its migration's end says otherwise */
	VM_GUEST_UNDECIDED, /* kept here, parked: a person decides */
};

struct vm {
	struct loop loop; /* the main thread's */
	struct machine *machine;
	struct control *control;
	struct migration *migration;
	struct command_context commands;
	struct control_table tables[3];
	struct loop_watch signals, last_words;
	struct process_log log;
	enum vm_guest guest;
	bool stays_root;		/* and that was not said yet */
	bool ended;			/* somebody wants it to end */
	bool failed;			/* while it was received, a vCPU met what KVM cannot run */
	bool once;			/* if it does not come, no other one is waited for */
	bool again;			/* it did not come: another process waits on */
	struct config_notes notes;	/* told when the guest is here */
	struct inherited *inherited;	/* the connections that this process was started with */
	struct receiver *receiver;	/* receive only */
	struct door door;		/* receive only */
	pid_t attendant;		/* the process that cleans up after this one; 0: none */
	int attendant_fd;		/* to ask it (attendant.h); -1: there is none */
	struct destination destination; /* as long as its migration: receive, restore */
	int notes_fd; /* for it: the sockets that were made; closed when the rights go */
	int exit_code;
};

/* What a process is made with. */
struct start {
	enum config_verb verb;
	const struct config *config;
	struct inherited inherited;
	struct receiver *receiver; /* receive, else NULL */
	pid_t attendant;	   /* of this process; 0: none */
	int attendant_fd;	   /* to ask it; -1: there is none */
	int notes_fd;		   /* to it: the paths of sockets */
	bool is_child;
	bool ended; /* the attending process has passed a signal on that ends the VM */
};

/* -- vm.c -- */

/* It is to end, with that exit code; a guest that is on its way here is cancelled first. */
void vm_end(struct vm *vm, int exit_code);
void vm_tell_shutdown(struct vm *vm, bool by_guest, const char *reason);
/* A guest is here: if it stays root, that is said once. */
void vm_warn_of_root(struct vm *vm);
/* Signals end the VM in good order; blocked here, before any thread inherits the mask. */
int vm_watch_signals(struct vm *vm, struct err *e);
/* For the machine, or before there is one. */
int vm_make_migration(struct vm *vm, struct err *e);
struct machine_events vm_machine_events(struct vm *vm);

/* -- vm_start.c -- */

/* Runs a VM in this process, from its beginning to its end. An exit code, or VM_EXIT_AGAIN. */
int vm_run(struct start *s);

#endif
