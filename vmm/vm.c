/*
 * What can happen while a VM runs: see vm.h.
 */
#include "vmm/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "migrate/commands.h"
#include "migrate/migration.h"
#include "vmm/attended.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/control/dispatch.h"

/* After a guest has moved away, clients get this long to ask what became of it. */
#define LAST_WORDS_S 1

void vm_end(struct vm *vm, int exit_code)
{
	vm->exit_code = exit_code;
	vm->ended = true;
	vm->again = false;
	/* A guest that has not arrived stays where it is: from here on it cannot be let run. */
	if (vm->guest == VM_GUEST_COMING)
		migration_cancel(vm->migration, "the VM that waited for the guest was ended");
	loop_stop(&vm->loop);
}

void vm_tell_shutdown(struct vm *vm, bool by_guest, const char *reason)
{
	control_event(vm->control, "SHUTDOWN",
		      json_pack("{s:b,s:s}", "guest", by_guest, "reason", reason));
	log_verbose("event: SHUTDOWN, %s", reason);
}

static void reset(struct vm *vm, bool by_guest)
{
	const char *reason = by_guest ? "guest-reset" : "host-qmp-system-reset";
	bool was_running = machine_status(vm->machine) == MACHINE_RUNNING;
	struct err e;

	if (machine_reset(vm->machine, &e) || (was_running && machine_resume(vm->machine, &e))) {
		log_warn("the guest cannot be rebooted: %s", e.text);
		migration_cancel(vm->migration, "the guest could not be rebooted");
		vm_end(vm, 1);
		return;
	}
	control_event(vm->control, "RESET",
		      json_pack("{s:b,s:s}", "guest", by_guest, "reason", reason));
	log_verbose("event: RESET, %s", reason);
}

static void on_request(void *arg, enum machine_request r)
{
	struct vm *vm = arg;

	/* What the guest asked for before it moved away was done for it then (machine_hold). */
	if (machine_status(vm->machine) == MACHINE_POSTMIGRATE && r != REQUEST_QUIT)
		return;
	switch (r) {
	case REQUEST_NONE:
		break;
	case REQUEST_RESET:
	case REQUEST_HOST_RESET:
		reset(vm, r == REQUEST_RESET);
		break;
	case REQUEST_POWEROFF:
		migration_cancel(vm->migration, "the guest has powered off");
		machine_park(vm->machine);
		machine_set_status(vm->machine, MACHINE_SHUTDOWN);
		vm_tell_shutdown(vm, true, "guest-shutdown");
		vm_end(vm, 0);
		break;
	case REQUEST_FAILED:
		/* Of a guest that is about to arrive: its migration's end tells whether it has. */
		vm->failed = vm->guest != VM_GUEST_HERE;
		if (vm->failed)
			break;
		migration_cancel(vm->migration, "the guest met what KVM cannot run");
		machine_park(vm->machine);
		machine_set_status(vm->machine, MACHINE_INTERNAL_ERROR);
		vm_tell_shutdown(vm, true, "guest-panic");
		vm_end(vm, 1);
		break;
	case REQUEST_QUIT:
		vm_tell_shutdown(vm, false, "host-qmp-quit");
		vm_end(vm, 0);
		break;
	}
}

/* As QEMU tells it. */
static void on_io_error(void *arg, const char *id, const struct device_io_error *x)
{
	struct vm *vm = arg;

	control_event(vm->control, "BLOCK_IO_ERROR",
		      json_pack("{s:s,s:s,s:s,s:b,s:s}", "device", id, "operation",
				x->write ? "write" : "read", "action", x->stop ? "stop" : "report",
				"nospace", x->no_space, "reason", x->reason));
	log_verbose("event: BLOCK_IO_ERROR of %s: %s", id, x->reason);
	if (!x->stop || !machine_stop_for_error(vm->machine))
		return;
	control_event(vm->control, "STOP", NULL);
	log_verbose("event: STOP");
}

static void on_signal(void *arg, uint32_t events)
{
	struct vm *vm = arg;
	struct signalfd_siginfo info;

	(void)events;
	if (read(vm->signals.fd, &info, sizeof(info)) != sizeof(info))
		return;
	vm_tell_shutdown(vm, false, "host-signal");
	vm_end(vm, 0);
}

/* The guest has arrived: signals that came before, here or to the attending process, count. */
static int on_arrived(void *arg, struct err *e)
{
	struct vm *vm = arg;

	if (vm->ended)
		return 0;
	if (attended_settle(vm->attendant_fd, e))
		return -1;
	on_signal(vm, 0);
	/* One that was answered already, and is delivered after this. */
	if (!vm->ended && machine_take_request(vm->machine, REQUEST_QUIT))
		on_request(vm, REQUEST_QUIT);
	return 0;
}

/* One guest has come: nobody else can. */
static void stop_listening(struct vm *vm)
{
	if (!vm->receiver)
		return;
	vm->receiver->shared->arriving = false;
	listeners_refuse(&vm->receiver->listeners);
	listeners_close(&vm->receiver->listeners);
	door_close(&vm->door);
}

/* A guest that was to come, and does not: there is nothing to keep. */
static void not_arrived(struct vm *vm)
{
	struct migration_report r;
	const char *why;

	/* What has come to an end meanwhile is not to be begun again. */
	if (!vm->ended)
		on_signal(vm, 0);
	migration_query(vm->migration, &r);
	why = r.error[0] ? r.error : "cancelled";
	vm->again = vm->receiver && !vm->once && !vm->ended;
	if (!vm->again) {
		log_warn("the guest did not arrive: %s", why);
		vm_end(vm, 1);
		return;
	}
	refusals_tell(&vm->receiver->shared->guests,
		      "the guest did not arrive: %s; waiting for the next one", why);
	loop_stop(&vm->loop);
}

/* What a script that goes on from here waits for. */
static void tell_arrival(const struct vm *vm)
{
	const char *name = machine_name(vm->machine);

	if (machine_status(vm->machine) == MACHINE_PAUSED)
		log_warn("the guest of '%s' is here, paused (godwit resume lets it run)", name);
	else
		log_warn("the guest of '%s' is here, and runs", name);
}

/* Once a guest is here: a command that fails says one sentence, about that. */
void vm_warn_of_root(struct vm *vm)
{
	if (vm->stays_root)
		log_warn("this VM stays root: a guest that breaks out of it owns root's files, "
			 "though "
			 "it has no capability; --user NAME gives it a user of its own");
	vm->stays_root = false;
}

static void on_arrival_undecided(struct vm *vm, const char *why)
{
	vm->guest = VM_GUEST_UNDECIDED;
	if (vm->ended)
		return;
	log_warn(
		"%s: it is undecided where it runs, and it stays here, parked. Look at the source; "
		"only if it does not run there: godwit resume %s --force",
		why, machine_name(vm->machine));
	/* It may be the only one: nobody takes its place. */
	stop_listening(vm);
}

static void on_arrival(struct vm *vm)
{
	vm->guest = VM_GUEST_HERE;
	tell_arrival(vm);
	vm_warn_of_root(vm);
	for (unsigned int i = 0; i < vm->notes.n; i++)
		log_warn("%s", vm->notes.text[i].text);
	stop_listening(vm);
	if (vm->failed)
		on_request(vm, REQUEST_FAILED);
}

/* What a guest's arrival came to. This process ends without a guest only if the source has it. */
static void on_arrival_status(struct vm *vm, enum phase s)
{
	struct migration_report r;

	migration_query(vm->migration, &r);
	if (s == PHASE_COMPLETED)
		on_arrival(vm);
	else if (s == PHASE_UNDECIDED)
		on_arrival_undecided(vm, r.error);
	else if ((s == PHASE_FAILED || s == PHASE_CANCELLED) && r.owner == OWNER_SOURCE)
		not_arrived(vm);
}

static void on_migration_status(void *arg, enum phase s)
{
	struct vm *vm = arg;

	control_event(vm->control, "MIGRATION", json_pack("{s:s}", "status", phase_name(s)));
	log_verbose("migration: %s", phase_name(s));
	if (vm->ended && s == PHASE_UNDECIDED) {
		log_warn("the VM was ended while it was handed over, and nobody has said whether "
			 "the guest runs at the destination: this copy of it is gone");
		vm->exit_code = 1;
	}
	if (vm->guest != VM_GUEST_HERE)
		on_arrival_status(vm, s);
}

static void on_pass(void *arg, uint64_t round)
{
	struct vm *vm = arg;

	control_event(vm->control, "MIGRATION_PASS", json_pack("{s:I}", "pass", (json_int_t)round));
	log_verbose("migration: round %" PRIu64, round);
}

static void on_decision(void *arg, enum decision d, const char *reason)
{
	struct migration_report r;
	struct vm *vm = arg;

	migration_query(vm->migration, &r);
	/* Since the migration began, in ms. */
	control_event(vm->control, "GODWIT_DECISION",
		      json_pack("{s:I,s:s,s:o}", "time", (json_int_t)r.total_ms, "action",
				decision_name(d), "reason", dispatch_text(reason)));
	log_verbose("decision: %s: %s", decision_name(d), reason);
}

static void on_last_words(void *arg, uint32_t events)
{
	(void)events;
	vm_end(arg, 0);
}

/* `where`: a URI, or the path of the file that it was saved to. */
static void on_moved(void *arg, const char *where)
{
	struct itimerspec soon = { .it_value.tv_sec = LAST_WORDS_S };
	struct vm *vm = arg;

	log_warn(where[0] == '/' ? "the guest is saved to %s" : "the guest has moved to %s", where);
	machine_depart(vm->machine);
	vm->last_words = (struct loop_watch){ .fn = on_last_words, .arg = vm };
	vm->last_words.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (vm->last_words.fd < 0 || timerfd_settime(vm->last_words.fd, 0, &soon, NULL) ||
	    loop_add(&vm->loop, &vm->last_words, EPOLLIN, NULL))
		vm_end(vm, 0);
}

struct machine_events vm_machine_events(struct vm *vm)
{
	return (struct machine_events){ on_request, vm, on_io_error };
}

int vm_watch_signals(struct vm *vm, struct err *e)
{
	sigset_t set;

	if (process_take_signals(&set, e))
		return -1;
	vm->signals = (struct loop_watch){ .fn = on_signal, .arg = vm };
	vm->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (vm->signals.fd < 0)
		return err_errno(e, errno, "cannot watch signals");
	return loop_add(&vm->loop, &vm->signals, EPOLLIN, e);
}

int vm_make_migration(struct vm *vm, struct err *e)
{
	const struct migration_events events = { on_migration_status, on_pass,
						 on_decision,	      on_moved,
						 on_arrived,	      vm };

	if (vm->migration) {
		migration_set_machine(vm->migration, vm->machine);
		return 0;
	}
	if (migration_new(&vm->migration, vm->machine, &vm->loop, &events, e))
		return -1;
	migration_set_inherited(vm->migration, vm->inherited);
	vm->tables[1] = (struct control_table){ migrate_commands, vm->migration };
	return 0;
}
