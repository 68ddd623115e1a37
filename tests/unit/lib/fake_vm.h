/*
 * A VM for tests of the control socket: the real server on a loop of its own thread, and in place
 * of vmm/machine.c a machine that is only its status. Included by one file of a test program.
 */
#ifndef GODWIT_TESTS_FAKE_VM_H
#define GODWIT_TESTS_FAKE_VM_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/control/commands.h"
#include "vmm/control/server.h"
#include "vmm/control/table.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/tree.h"

struct machine {
	enum machine_status status;
	enum machine_arrival arrival;
	unsigned int parks, resumes, buttons, requests[REQUEST_QUIT + 1];
	uint64_t balloon_bytes; /* 0: it has none */
	uint64_t disk_bytes;	/* of the last resize */
	unsigned int resizes;
	struct tree tree;
};

/* `machine` first: what the machine's functions are given is the whole. */
struct fake_vm {
	struct machine machine;
	struct command_context context;
	struct control_table tables[4];
	struct control *control; /* NULL once closed; loop's thread */
	struct loop loop;
	char dir[64], path[128];
	const char *migrate_ends; /* "completed", "failed", NULL: never */
	const char *migrate_status;
	bool was_paused;  /* the guest, before its migration */
	int raise_signal; /* by migrate */
};

const char *machine_status_name(enum machine_status s)
{
	static const char *const names[] = {
		[MACHINE_PRELAUNCH] = "prelaunch",
		[MACHINE_RUNNING] = "running",
		[MACHINE_PAUSED] = "paused",
		[MACHINE_INMIGRATE] = "inmigrate",
		[MACHINE_FINISH_MIGRATE] = "finish-migrate",
		[MACHINE_POSTMIGRATE] = "postmigrate",
		[MACHINE_SHUTDOWN] = "shutdown",
		[MACHINE_INTERNAL_ERROR] = "internal-error",
		[MACHINE_IO_ERROR] = "io-error",
	};

	return names[s];
}

enum machine_status machine_status(const struct machine *m)
{
	return m->status;
}

void machine_park(struct machine *m)
{
	m->parks++;
	m->status = MACHINE_PAUSED;
}

int machine_resume(struct machine *m, struct err *e)
{
	(void)e;
	m->resumes++;
	m->status = MACHINE_RUNNING;
	return 0;
}

void machine_set_arrival(struct machine *m, enum machine_arrival a)
{
	m->arrival = a;
}

void machine_press_power_button(struct machine *m)
{
	m->buttons++;
	machine_request(m, REQUEST_POWEROFF);
}

const char *machine_name(const struct machine *m)
{
	(void)m;
	return "fake";
}

const struct tree *machine_tree(const struct machine *m)
{
	return &m->tree;
}

unsigned int machine_n_vcpus(const struct machine *m)
{
	(void)m;
	return 2;
}

int machine_vcpu_thread_id(const struct machine *m, unsigned int vcpu)
{
	(void)m;
	return 100 + (int)vcpu;
}

int machine_set_balloon(struct machine *m, uint64_t bytes, struct err *e)
{
	(void)e;
	m->balloon_bytes = bytes;
	return 0;
}

int machine_balloon(struct machine *m, uint64_t *bytes, struct err *e)
{
	*bytes = m->balloon_bytes;
	return *bytes ? 0 : err_set(e, "the machine has no balloon");
}

int machine_resize_disk(struct machine *m, const char *id, uint64_t bytes, struct err *e)
{
	if (strcmp(id, "disk0"))
		return err_set(e, "there is no disk '%s' (the VM has disk0)", id);
	m->disk_bytes = bytes;
	m->resizes++;
	return 0;
}

static void fake_close_now(void *arg)
{
	struct fake_vm *vm = arg;

	control_close(vm->control);
	vm->control = NULL;
}

/* As main.c does: the VM ends, or is reset and says so. */
void machine_request(void *machine, enum machine_request r)
{
	struct fake_vm *vm = machine;

	vm->machine.requests[r]++;
	if (r == REQUEST_HOST_RESET)
		control_event(vm->control, "RESET", json_pack("{s:b}", "guest", 0));
	else
		loop_post(&vm->loop, fake_close_now, vm);
}

/* A command with every kind of argument, which returns what it was given. */

static const struct control_argument echo_arguments[] = {
	{ .name = "text", .type = CONTROL_STRING, .required = true },
	{ .name = "number", .type = CONTROL_INTEGER, .min = 1, .max = 10 },
	{ .name = "any", .type = CONTROL_INTEGER },
	{ .name = "yes", .type = CONTROL_BOOLEAN },
	{ .name = "list", .type = CONTROL_ARRAY },
	{ .name = "map", .type = CONTROL_OBJECT },
	{ .name = NULL },
};

static int fake_echo(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)e;
	*result = json_incref(arguments);
	return 0;
}

static int fake_fail(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)arguments;
	(void)result;
	return err_set(e, "disk \xff: broken");
}

/* A migration to a file that ends as the test says. */

static const struct control_argument migrate_arguments[] = {
	{ .name = "uri", .type = CONTROL_STRING, .required = true },
	{ .name = NULL },
};

static void migrate_end(struct fake_vm *vm, const char *status)
{
	vm->migrate_status = status;
	control_event(vm->control, "MIGRATION", json_pack("{s:s}", "status", status));
	if (!strcmp(status, "completed"))
		loop_post(&vm->loop, fake_close_now, vm);
}

static int fake_migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const char *uri = json_string_value(json_object_get(arguments, "uri"));
	struct fake_vm *vm = context;

	(void)result;
	if (strncmp(uri, "file:/", 6))
		return err_set(e, "'%s' is not a file", uri);
	vm->migrate_status = "active";
	if (vm->migrate_ends)
		migrate_end(vm, vm->migrate_ends);
	if (vm->raise_signal)
		kill(getpid(), vm->raise_signal);
	return 0;
}

static int fake_cancel(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)arguments;
	(void)result;
	(void)e;
	migrate_end(context, "cancelled");
	return 0;
}

static int fake_query(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct fake_vm *vm = context;

	(void)arguments;
	(void)e;
	*result = json_pack("{s:s,s:s}", "status", vm->migrate_status, "error-desc",
			    "no space left");
	return 0;
}

static int fake_force(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct fake_vm *vm = context;

	(void)arguments;
	(void)result;
	if (strcmp(vm->migrate_status, "x-godwit-undecided"))
		return err_set(e, "there is nothing to force");
	vm->migrate_status = "failed";
	if (vm->was_paused) {
		vm->machine.status = MACHINE_PAUSED;
		return 0;
	}
	return machine_resume(&vm->machine, e);
}

static const struct control_command fake_commands[] = {
	{ .name = "echo", .arguments = echo_arguments, .run = fake_echo },
	{ .name = "fail", .run = fake_fail },
	{ .name = "migrate", .arguments = migrate_arguments, .run = fake_migrate },
	{ .name = "migrate_cancel", .run = fake_cancel },
	{ .name = "query-migrate", .run = fake_query },
	{ .name = "x-godwit-force-resume", .run = fake_force },
	{ .name = NULL },
};

/* Starts the VM: its socket is vm->path, in a directory of its own. */
static void fake_start(struct fake_vm *vm)
{
	struct err e = { "" };

	memset(vm, 0, sizeof(*vm));
	strcpy(vm->dir, "/tmp/godwit-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(vm->dir));
	snprintf(vm->path, sizeof(vm->path), "%s/fake.sock", vm->dir);
	vm->machine.status = MACHINE_RUNNING;
	vm->migrate_status = "none";
	ck_assert_int_eq(tree_init(&vm->machine.tree, &e), 0);
	tree_set_str(&vm->machine.tree, "/", "compatible", "godwit,z80", &e);
	vm->context.machine = &vm->machine;
	vm->tables[0] = (struct control_table){ machine_commands, &vm->context };
	vm->tables[1] = (struct control_table){ fake_commands, vm };
	ck_assert_int_eq(loop_init(&vm->loop, &e), 0);
	ck_assert_msg(control_open(&vm->control, &vm->loop, vm->path, vm->tables, &e) == 0, "%s",
		      e.text);
	vm->context.control = vm->control;
	ck_assert_int_eq(loop_start(&vm->loop, "io", &e), 0);
}

static void fake_stop(struct fake_vm *vm)
{
	loop_call(&vm->loop, fake_close_now, vm);
	loop_join(&vm->loop);
	loop_free(&vm->loop);
	tree_free(&vm->machine.tree);
	ck_assert_int_eq(rmdir(vm->dir), 0); /* nothing is left behind */
}

#endif
