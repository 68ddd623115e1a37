/*
 * How a VM comes up, at a boot, a restore or an arrival alike, and how it goes down: see vm.h.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices/models.h"
#include "migrate/destination/await.h"
#include "migrate/channel/channel.h"
#include "migrate/migration.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/base/words.h"
#include "vmm/cli/verb.h"
#include "vmm/control/runtime.h"
#include "vmm/sandbox.h"
#include "vmm/vm.h"

#define THREAD_STACK_BYTES (1u << 20)

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
	return migration_refuse_busy(migration, e);
}

static int make_machine(struct vm *vm, const struct config *c, struct tree *t,
			enum machine_origin origin, struct err *e)
{
	const struct machine_events events = vm_machine_events(vm);
	struct sandbox_user user;
	const char *name;
	struct err later;

	/* It is printed, and given to clients, also where no socket has that name. */
	if (tree_str(t, "/", "label", &name, e) ||
	    word_check_name("the VM's name", name, CONFIG_NAME_MAX, e) ||
	    (c->user && sandbox_find_user(c->user, &user, e)))
		return -1;
	if ((!vm->signals.fn && vm_watch_signals(vm, e)) || claim_name(vm, c, name, e) ||
	    machine_build(t, origin, device_models, &vm->loop, &events, &vm->machine, e) ||
	    vm_make_migration(vm, e))
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
	vm_warn_of_root(vm);
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
		vm->guest = VM_GUEST_COMING;
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

	vm_tell_shutdown(vm, false, "host-qmp-quit");
	vm_end(vm, 0);
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
		refusals_tell(&vm->receiver->shared->guests, "a guest was refused: %s", e->text);
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
	if (vm_watch_signals(vm, e) || claim_name(vm, c, c->name, e) || vm_make_migration(vm, e))
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

int vm_run(struct start *s)
{
	struct vm vm = { .attendant = s->attendant,
			 .attendant_fd = s->attendant_fd,
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
	return vm.again && !vm.ended ? VM_EXIT_AGAIN : vm.exit_code;
}
