/*
 * The composition root: a verb is found; for those that make a VM (run, restore) everything is
 * parsed, built, wired and run here. Main thread. The only place, with vmm/cli/, that may print
 * and choose an exit code.
 *
 * A VM comes up in this order, and each step that fails undoes the ones before it:
 *   name claimed (control socket), machine built, rights given up, threads started, kernel or
 *   saved state loaded, guest running.
 * One that receives waits for its guest between the name and the machine, and can be asked then.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/models.h"
#include "migrate/await.h"
#include "migrate/channel/channel.h"
#include "migrate/commands.h"
#include "migrate/channel/inherited.h"
#include "migrate/channel/listeners.h"
#include "migrate/channel/uri.h"
#include "migrate/destination.h"
#include "migrate/door.h"
#include "migrate/migration.h"
#include "migrate/refusals.h"
#include "migrate/slots.h"
#include "vmm/base/err.h"
#include "vmm/base/io.h"
#include "vmm/base/log.h"
#include "vmm/cli/inspect.h"
#include "vmm/cli/verb.h"
#include "vmm/config.h"
#include "vmm/control/commands.h"
#include "vmm/control/dispatch.h"
#include "vmm/control/runtime.h"
#include "vmm/control/server.h"
#include "vmm/machine.h"
#include "vmm/process.h"
#include "vmm/sandbox.h"
#include "vmm/version.h"

/* After a guest has moved away, clients get this long to ask what became of it. */
#define LAST_WORDS_S 1

#define THREAD_STACK_BYTES (1u << 20)

/* How a process ends that was to receive a guest which did not arrive: there is to be another one.
 */
#define EXIT_AGAIN 75

/* What all processes of one `receive` share; made by the first one. */
struct receiver {
	struct listeners listeners;
	char name[LISTENERS_MAX * 64]; /* of them, for messages */
	int passed_on[2];	       /* sockets: see door.h */
	struct {
		struct refusals refusals;
		bool told; /* that one waits */
		enum machine_arrival arrival;
		bool arriving; /* rights are given up, and a guest is coming */
	} * shared;	       /* memory */
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
	bool receiving;			/* the guest is not here yet */
	bool stays_root;		/* and that was not said yet */
	bool ended;			/* somebody wants it to end */
	bool once;			/* if it does not come, no other one is waited for */
	bool again;			/* it did not come: another process waits on */
	struct config_notes notes;	/* told when the guest is here */
	struct inherited *inherited;	/* the connections that this process was started with */
	struct receiver *receiver;	/* receive only */
	struct door door;		/* receive only */
	pid_t attendant;		/* the process that cleans up after this one; 0: none */
	struct destination destination; /* as long as its migration: receive, restore */
	int notes_fd; /* for it: the sockets that were made; closed when the rights go */
	int exit_code;
};

/* -- what can happen while it runs -- */

static void end(struct vm *vm, int exit_code)
{
	vm->exit_code = exit_code;
	vm->ended = true;
	/* A guest that has not arrived stays where it is: from here on it cannot be let run. */
	if (vm->receiving)
		migration_cancel(vm->migration, "the VM that waited for the guest was ended");
	loop_stop(&vm->loop);
}

static void tell_shutdown(struct vm *vm, bool by_guest, const char *reason)
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
		end(vm, 1);
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
		tell_shutdown(vm, true, "guest-shutdown");
		end(vm, 0);
		break;
	case REQUEST_FAILED:
		migration_cancel(vm->migration, "the guest met what KVM cannot run");
		machine_park(vm->machine);
		machine_set_status(vm->machine, MACHINE_INTERNAL_ERROR);
		tell_shutdown(vm, true, "guest-panic");
		end(vm, 1);
		break;
	case REQUEST_QUIT:
		tell_shutdown(vm, false, "host-qmp-quit");
		end(vm, 0);
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
	tell_shutdown(vm, false, "host-signal");
	end(vm, 0);
}

/* The guest has arrived: signals that came before, but after the loop looked, count. */
static void on_arrived(void *arg)
{
	struct vm *vm = arg;

	if (!vm->ended)
		on_signal(vm, 0);
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

	migration_query(vm->migration, &r);
	why = r.error[0] ? r.error : "cancelled";
	vm->again = vm->receiver && !vm->once && !vm->ended;
	if (!vm->again) {
		log_warn("the guest did not arrive: %s", why);
		end(vm, 1);
		return;
	}
	refusals_tell(&vm->receiver->shared->refusals,
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
static void warn_of_root(struct vm *vm)
{
	if (vm->stays_root)
		log_warn("this VM stays root: a guest that breaks out of it owns root's files, "
			 "though "
			 "it has no capability; --user NAME gives it a user of its own");
	vm->stays_root = false;
}

static void on_migration_status(void *arg, enum migration_status s)
{
	struct vm *vm = arg;

	control_event(vm->control, "MIGRATION",
		      json_pack("{s:s}", "status", migration_status_name(s)));
	log_verbose("migration: %s", migration_status_name(s));
	if (vm->receiving && (s == MIGRATION_FAILED || s == MIGRATION_CANCELLED))
		not_arrived(vm);
	if (vm->ended && s == MIGRATION_UNDECIDED) {
		log_warn("the VM was ended while it was handed over, and nobody has said whether "
			 "the guest runs at the destination: this copy of it is gone");
		vm->exit_code = 1;
	}
	if (vm->receiving && s == MIGRATION_UNDECIDED && !vm->ended) {
		struct migration_report r;

		migration_query(vm->migration, &r);
		log_warn(
			"%s: it is undecided where it runs, and it stays here, parked. Look at the "
			"source; only if it does not run there: godwit resume %s --force",
			r.error, machine_name(vm->machine));
		/* It may be the only one: nobody takes its place. */
		stop_listening(vm);
	}
	if (vm->receiving && s == MIGRATION_COMPLETED) {
		tell_arrival(vm);
		warn_of_root(vm);
		for (unsigned int i = 0; i < vm->notes.n; i++)
			log_warn("%s", vm->notes.text[i].text);
		vm->receiving = false;
		stop_listening(vm);
	}
}

static void on_pass(void *arg, uint64_t round)
{
	struct vm *vm = arg;

	control_event(vm->control, "MIGRATION_PASS", json_pack("{s:I}", "pass", (json_int_t)round));
	log_verbose("migration: round %" PRIu64, round);
}

static void on_decision(void *arg, const char *action, const char *reason)
{
	struct migration_report r;
	struct vm *vm = arg;

	migration_query(vm->migration, &r);
	/* Since the migration began, in ms. */
	control_event(vm->control, "GODWIT_DECISION",
		      json_pack("{s:I,s:s,s:o}", "time", (json_int_t)r.total_ms, "action", action,
				"reason", dispatch_text(reason)));
	log_verbose("decision: %s: %s", action, reason);
}

static void on_last_words(void *arg, uint32_t events)
{
	(void)events;
	end(arg, 0);
}

static void on_moved(void *arg, const char *where)
{
	struct itimerspec soon = { .it_value.tv_sec = LAST_WORDS_S };
	struct vm *vm = arg;

	log_warn("the guest has moved to %s", where);
	machine_depart(vm->machine);
	vm->last_words = (struct loop_watch){ .fn = on_last_words, .arg = vm };
	vm->last_words.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (vm->last_words.fd < 0 || timerfd_settime(vm->last_words.fd, 0, &soon, NULL) ||
	    loop_add(&vm->loop, &vm->last_words, EPOLLIN, NULL))
		end(vm, 0);
}

/* -- bringing it up and down -- */

/* Signals end the VM in good order; blocked here, before any thread inherits the mask. */
static int watch_signals(struct vm *vm, struct err *e)
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

/* One that waited for its guest may have a name already; it keeps it, or takes its guest's. */
static int claim_name(struct vm *vm, const struct config *c, const char *name, struct err *e)
{
	char by_name[RUNTIME_PATH_MAX];
	const char *path = c->control;
	int rc;

	if (!path && runtime_name_path(name, true, by_name, e))
		return -1;
	path = path ? path : by_name;
	if (vm->control && !strcmp(control_path(vm->control), path))
		return 0;
	vm->tables[0] = (struct control_table){ machine_commands, &vm->commands };
	rc = vm->control ? control_move(vm->control, path, e)
			 : control_open(&vm->control, &vm->loop, path, vm->tables, e);
	if (rc && !c->control && errno == EADDRINUSE)
		return err_set(e, "the name '%s' is in use by another VM on this host (%s)", name,
			       path);
	return rc;
}

/* For the machine, or before there is one. */
static int make_migration(struct vm *vm, struct err *e)
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

/* While there is the right to: the VM's migrations count among those of the host. */
static void open_slots(struct vm *vm)
{
	char dir[RUNTIME_PATH_MAX];
	const char *name;
	struct err e;

	if (tree_str(machine_tree(vm->machine), "/", "label", &name, &e) ||
	    runtime_dir(dir, true, &e))
		log_verbose("there can be no migration with a policy: %s", e.text);
	else
		migration_open_slots(vm->migration, dir, name);
}

static void note(struct vm *vm, const char *path)
{
	(void)!write(vm->notes_fd, path, strlen(path) + 1);
}

/* Once and before rights are given up: later words would not be this program's for sure. */
static void note_sockets(struct vm *vm)
{
	const struct tree *t = machine_tree(vm->machine);
	const char *text;
	char prop[32];

	if (!vm->attendant)
		return;
	note(vm, control_path(vm->control));
	if (!tree_str(t, "/host/serial0", "console", &text, NULL) && !strncmp(text, "unix:", 5))
		note(vm, text + 5);
	for (unsigned int i = 1; i <= CONFIG_DEVICES_MAX; i++) {
		snprintf(prop, sizeof(prop), "socket-%u", i);
		if (!tree_str(t, "/host/channels", prop, &text, NULL))
			note(vm, text);
	}
	close(vm->notes_fd);
}

/*
 * Who kills the process that he has started wants the VM to end. After the change of user, which
 * takes this setting away.
 */
static int stay_with_attendant(struct vm *vm, struct err *e)
{
	if (!vm->attendant)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, SIGTERM))
		return err_errno(e, errno, "cannot ask for the end of the attending process");
	if (getppid() != vm->attendant)
		return err_set(e, "the attending process has ended");
	return 0;
}

static int is_free(void *migration, struct err *e)
{
	return migration_check_free(migration, e);
}

static int make_machine(struct vm *vm, const struct config *c, struct tree *t,
			enum machine_origin origin, struct err *e)
{
	const struct machine_events machine_events = { on_request, vm, on_io_error };
	struct sandbox_user user;
	const char *name;
	struct err later;

	if (tree_str(t, "/", "label", &name, e) ||
	    (c->user && sandbox_find_user(c->user, &user, e)))
		return -1;
	if ((!vm->signals.fn && watch_signals(vm, e)) || claim_name(vm, c, name, e) ||
	    machine_build(t, origin, device_models, &vm->loop, &machine_events, &vm->machine, e) ||
	    make_migration(vm, e))
		return -1;
	note_sockets(vm);
	open_slots(vm);
	machine_set_arrival(vm->machine, vm->commands.arrival);
	vm->commands = (struct command_context){ .machine = vm->machine,
						 .control = vm->control,
						 .arrival = vm->commands.arrival,
						 .check_free = is_free,
						 .free_arg = vm->migration };
	if ((origin == ORIGIN_FRESH || tree_has(t, "/host/boot", "kernel")) &&
	    machine_open_boot(vm->machine, &later)) {
		if (origin == ORIGIN_FRESH)
			return err_set(e, "%s", later.text);
		err_set(&vm->notes.text[vm->notes.n++],
			"the guest will not be able to reboot here: %s", later.text);
	}
	/* Its threads would keep theirs. */
	if (vm->receiver) {
		door_shut(&vm->door);
		vm->receiver->shared->arriving = true;
	}
	if (sandbox_enter(c->user ? &user : NULL, e) || stay_with_attendant(vm, e))
		return -1;
	vm->stays_root = geteuid() == 0 && !c->user;
	return machine_launch(vm->machine, e);
}

static int go(struct vm *vm, const struct config *c, struct err *e)
{
	if (!c->paused && machine_resume(vm->machine, e))
		return -1;
	warn_of_root(vm);
	loop_run(&vm->loop);
	return 0;
}

static void vm_free(struct vm *vm)
{
	/* First: its thread may still be taking in. */
	migration_free(vm->migration);
	if (vm->receiver && vm->again)
		door_pass_on(&vm->door);
	else if (vm->receiver)
		door_close(&vm->door);
	if (vm->machine)
		machine_destroy(vm->machine);
	control_close(vm->control);
	if (vm->signals.fd > 0)
		close(vm->signals.fd);
	if (vm->last_words.fd > 0)
		close(vm->last_words.fd);
	process_log_end(&vm->log);
	loop_free(&vm->loop);
}

/* -- the verbs that make a VM -- */

static int boot_new(struct vm *vm, const struct config *c, struct err *e)
{
	struct tree t;
	int rc;

	if (tree_init(&t, e))
		return -1;
	rc = config_tree(c, &t, e) || make_machine(vm, c, &t, ORIGIN_FRESH, e) ||
	     machine_boot(vm->machine, e) || go(vm, c, e);
	tree_free(&t);
	return rc ? -1 : 0;
}

/*
 * The machine that the destination brings, waiting for its guest. `own`: this user has made it, so
 * it may say what is opened on this host.
 */
static int make_arriving(struct vm *vm, const struct config *c, bool own, struct tree *t,
			 struct err *e)
{
	struct destination *d = &vm->destination;
	struct machine_costs costs;
	int rc = config_admit_tree(c, own, t, &vm->notes, e) || config_override_tree(c, t, e) ||
		 config_check_memory(c, t, e) ||
		 make_machine(vm, c, t, d->cold ? ORIGIN_FILE : ORIGIN_INCOMING, e);

	tree_free(t);
	if (rc) {
		destination_answer(d, e->text, NULL);
		destination_free(d);
		return -1;
	}
	machine_set_status(vm->machine, MACHINE_INMIGRATE);
	if (!d->cold && machine_rehearse(vm->machine, &costs, NULL) == 0)
		destination_set_costs(d, costs.load_us, costs.start_us);
	if (destination_answer(d, NULL, e) == 0) {
		vm->receiving = true;
		/* Its thread asks this one from its first moment on. */
		loop_adopt(&vm->loop);
		return migration_receive(vm->migration, d, c->paused, e);
	}
	destination_free(d);
	return -1;
}

static int restore_saved(struct vm *vm, const struct config *c, struct err *e)
{
	struct channel *ch;
	struct tree t;
	struct err why;
	bool own;

	if (file_channel_open(&ch, c->operand, e))
		return -1;
	own = file_channel_is_own(ch, &why);
	if (!own && !c->same_paths)
		log_warn("%s: what it says of this host is not taken for granted", why.text);
	if (destination_open(&vm->destination, ch, true, -1, &t, e) ||
	    make_arriving(vm, c, own, &t, e))
		return -1;
	loop_run(&vm->loop);
	return 0;
}

/* `quit`, before there is a machine. */
static void quit_waiting(void *arg)
{
	struct vm *vm = arg;

	tell_shutdown(vm, false, "host-qmp-quit");
	end(vm, 0);
}

/* Waits until a source brings a machine that can be made here. 0 also when the VM was ended. */
static int receive_machine(struct vm *vm, const struct config *c, struct err *e)
{
	struct destination *d = &vm->destination;
	struct tree t;

	for (;;) {
		if (await_source(d, &vm->door, &vm->loop, &t, e))
			return vm->ended ? 0 : -1;
		destination_set_stop(d, vm->signals.fd);
		if (vm->ended) {
			destination_answer(d, "the VM that waited was ended", NULL);
			destination_free(d);
			tree_free(&t);
			return 0;
		}
		if (make_arriving(vm, c, false, &t, e) == 0)
			return 0;
		if (c->once)
			return -1;
		refusals_tell(&vm->receiver->shared->refusals, "a guest was refused: %s", e->text);
		/* With the rights given up the next one is another process's. */
		vm->again = vm->machine;
		if (vm->again)
			return 0;
		if (claim_name(vm, c, c->name, e))
			return -1;
	}
}

/* Listens, takes one migration in, and runs what came. */
static int receive(struct vm *vm, const struct config *c, struct err *e)
{
	struct receiver *r = vm->receiver;
	const struct door_shared shared = { &r->listeners,
					    &r->shared->refusals,
					    { r->passed_on[0], r->passed_on[1] } };

	door_init(&vm->door, &shared, (int)c->silence_s * 1000);
	if (watch_signals(vm, e) || claim_name(vm, c, c->name, e) || make_migration(vm, e))
		return -1;
	vm->commands = (struct command_context){ .control = vm->control,
						 .name = c->name,
						 .quit = quit_waiting,
						 .arg = vm,
						 .arrival = r->shared->arrival };
	if (door_open(&vm->door, e))
		return -1;
	if (!r->shared->told)
		log_warn("waiting for a guest on %s", r->name);
	r->shared->told = true;
	if (receive_machine(vm, c, e))
		return -1;
	if (!vm->ended && !vm->again)
		loop_run(&vm->loop);
	return 0;
}

/*
 * Threads get stacks in which no huge page fits. The usual ones are 8 MiB, and where huge pages are
 * given to all (Debian's default), the first word of each costs the host 2 MiB.
 */
static void small_stacks(void)
{
	pthread_attr_t attr;

	if (pthread_attr_init(&attr))
		return;
	if (!pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES))
		pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

/* What a process is made with. */
struct start {
	enum config_verb verb;
	const struct config *config;
	struct inherited inherited;
	struct receiver *receiver; /* receive, else NULL */
	pid_t attendant;	   /* of this process; 0: none */
	int notes_fd;
	bool is_child;
};

static int run_vm(struct start *s)
{
	struct vm vm = { .attendant = s->attendant,
			 .notes_fd = s->notes_fd,
			 .inherited = &s->inherited,
			 .receiver = s->receiver,
			 .once = s->config->once };
	const struct config *c = s->config;
	struct err e;
	int rc;

	small_stacks();
	log_set_verbose(c->verbose);
	log_open();
	if (loop_init(&vm.loop, &e)) {
		log_warn("%s", e.text);
		return VERB_FAILED;
	}
	process_log_begin(&vm.log, &vm.loop);
	rc = stay_with_attendant(&vm, &e) ? -1
	     : s->verb == CONFIG_RUN	  ? boot_new(&vm, c, &e)
	     : s->verb == CONFIG_RESTORE  ? restore_saved(&vm, c, &e)
					  : receive(&vm, c, &e);
	if (rc) {
		log_warn("%s", e.text);
		vm.exit_code = VERB_FAILED;
	}
	vm_free(&vm);
	if (vm.receiver) {
		vm.receiver->shared->arriving = false;
		vm.receiver->shared->arrival = vm.commands.arrival;
	}
	log_close();
	return vm.again ? EXIT_AGAIN : vm.exit_code;
}

static void remove_leftovers(int notes_fd)
{
	char paths[(CONFIG_DEVICES_MAX + 2) * RUNTIME_PATH_MAX], *path, *end, dir[RUNTIME_PATH_MAX];
	ssize_t n = io_read_full(notes_fd, paths, sizeof(paths));

	for (path = paths; n > 0; n -= end + 1 - path, path = end + 1) {
		end = memchr(path, '\0', (size_t)n);
		if (!end)
			break;
		runtime_remove_stale(path);
	}
	if (!runtime_dir(dir, false, NULL))
		slots_remove_unused(dir);
}

/*
 * A VM that gives up root for another user may not take its sockets out of root's directories at
 * the end. So it runs in a child, and this process stays to pass signals on and to clean up. And
 * one that has given up rights for a guest that did not arrive cannot receive another one: this
 * process still can. It has one thread only, so that it may fork.
 */
static int attend(struct start *s)
{
	pid_t child, self = getpid();
	int status, taken, notes[2];
	struct err e;
	sigset_t set;

	log_open();
	if (process_take_signals(&set, &e)) {
		log_warn("%s", e.text);
		return VERB_FAILED;
	}
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (pipe2(notes, O_CLOEXEC)) {
		log_warn("cannot make a pipe: %s", strerror(errno));
		return VERB_FAILED;
	}
	child = fork();
	if (child == 0) {
		close(notes[0]);
		s->attendant = self;
		s->notes_fd = notes[1];
		s->is_child = true;
		return run_vm(s);
	}
	close(notes[1]);
	if (child < 0) {
		log_warn("cannot start a process: %s", strerror(errno));
		close(notes[0]);
		return VERB_FAILED;
	}
	while (waitpid(child, &status, WNOHANG) == 0)
		if (sigwait(&set, &taken) == 0 && taken != SIGCHLD)
			kill(child, taken);
	remove_leftovers(notes[0]);
	close(notes[0]);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	log_warn("the VM was ended by signal %d (%s)", WTERMSIG(status),
		 strsignal(WTERMSIG(status)));
	log_close();
	return VERB_FAILED;
}

/* What vmm/config.c cannot know: URIs are of migrate/. */
static int check_listen(const struct config *c, struct err *e)
{
	struct uri u;

	if (!c->listen || c->help)
		return 0;
	return uri_parse(c->listen, &u, e) || uri_check_listen(&u, e) ? err_context(e, "--listen")
								      : 0;
}

static int open_receiver(struct receiver *r, const struct config *c, struct err *e)
{
	struct uri listen;

	r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r->shared == MAP_FAILED)
		return err_errno(e, errno, "cannot make shared memory");
	if (door_make_passage(r->passed_on, e) == 0) {
		if (uri_parse(c->listen, &listen, e) == 0 &&
		    listeners_open(&r->listeners, &listen, r->name, sizeof(r->name), e) == 0)
			return 0;
		close(r->passed_on[0]);
		close(r->passed_on[1]);
	}
	munmap(r->shared, sizeof(*r->shared));
	return -1;
}

static void close_receiver(struct receiver *r)
{
	listeners_close(&r->listeners);
	close(r->passed_on[0]);
	close(r->passed_on[1]);
	munmap(r->shared, sizeof(*r->shared));
}

/* In this process or in children: as often as it takes until a guest has come, or somebody ends it.
 */
static int receive_guest(struct start *s)
{
	bool attended = geteuid() == 0 && (s->config->user || !s->config->once), crashed;
	struct receiver r = { 0 };
	struct err e;
	int code;

	if (open_receiver(&r, s->config, &e))
		return verb_fail(&e, VERB_FAILED);
	s->receiver = &r;
	do {
		code = attended ? attend(s) : run_vm(s);
		/* By what a stranger has sent, most likely; nothing is lost with it. */
		crashed = attended && r.shared->arriving && !s->config->once;
		r.shared->arriving = false;
	} while (!s->is_child && (code == EXIT_AGAIN || crashed));
	if (!s->is_child)
		close_receiver(&r);
	return code;
}

static int make_vm(enum config_verb verb, int argc, char **argv)
{
	struct config c;
	struct start s = { .verb = verb, .config = &c, .notes_fd = -1 };
	struct err e;
	int code;

	inherited_find(&s.inherited);
	if (config_parse(&c, verb, argc, argv, &e) || check_listen(&c, &e))
		code = verb_fail(&e, VERB_USAGE);
	else if (c.help)
		code = help_print(verb == CONFIG_RUN	   ? "run"
				  : verb == CONFIG_RESTORE ? "restore"
							   : "receive");
	else if (verb == CONFIG_RECEIVE)
		code = receive_guest(&s);
	else
		code = c.user && geteuid() == 0 ? attend(&s) : run_vm(&s);
	config_free(&c);
	return code;
}

static int run_verb(int argc, char **argv)
{
	const struct verb *verb;

	if (!strcmp(argv[1], "--version")) {
		printf("godwit %s\n", godwit_version());
		return VERB_DONE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return help_print(argc > 2 ? argv[2] : NULL);
	if (!strcmp(argv[1], "run"))
		return make_vm(CONFIG_RUN, argc - 2, argv + 2);
	if (!strcmp(argv[1], "restore"))
		return make_vm(CONFIG_RESTORE, argc - 2, argv + 2);
	if (!strcmp(argv[1], "receive"))
		return make_vm(CONFIG_RECEIVE, argc - 2, argv + 2);
	if (!strcmp(argv[1], "inspect"))
		return verb_inspect(argc - 2, argv + 2);
	verb = verb_find(argv[1]);
	return verb ? verb->run(argc - 2, argv + 2) : help_print(argv[1]);
}

int main(int argc, char **argv)
{
	int code;

	process_fill_descriptors();
	if (argc < 2) {
		help_print(NULL);
		return VERB_USAGE;
	}
	code = run_verb(argc, argv);
	return verb_output_lost(argv[1]) && code == VERB_DONE ? VERB_FAILED : code;
}
