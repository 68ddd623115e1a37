/*
 * A VM like `godwit run`'s with commands that the program does not have, because only its migration
 * engine may use them: the throttle of vCPUs. For tests/bare; started as `drive run OPTION...`.
 *
 *     x-throttle {permille, cpu?}      machine_throttle, or machine_throttle_vcpu
 *
 * beside the machine's own commands (stop, cont, quit, ...). It keeps its rights and knows no
 * migration. Everything is on the main thread's loop.
 */
#include <stdio.h>

#include "devices/models.h"
#include "vmm/base/err.h"
#include "vmm/config.h"
#include "vmm/control/commands.h"
#include "vmm/control/runtime.h"
#include "vmm/control/server.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/throttle.h"

struct drive {
	struct loop loop;
	struct machine *machine;
	struct control *control;
	struct command_context context;
	struct control_table tables[3];
};

static const struct control_argument throttle_arguments[] = {
	{ .name = "permille",
	  .type = CONTROL_INTEGER,
	  .required = true,
	  .min = 0,
	  .max = THROTTLE_MAX_PERMILLE },
	{ .name = "cpu", .type = CONTROL_INTEGER },
	{ .name = NULL },
};

static int throttle(void *context, json_t *arguments, json_t **result, struct err *e)
{
	json_int_t permille = json_integer_value(json_object_get(arguments, "permille"));
	json_t *cpu = json_object_get(arguments, "cpu");
	struct drive *d = context;

	(void)result;
	(void)e;
	if (cpu)
		machine_throttle_vcpu(d->machine, (unsigned int)json_integer_value(cpu),
				      (unsigned int)permille);
	else
		machine_throttle(d->machine, (unsigned int)permille);
	return 0;
}

static const struct control_command commands[] = {
	{ .name = "x-throttle", .arguments = throttle_arguments, .run = throttle },
	{ .name = NULL },
};

static void on_request(void *arg, enum machine_request r)
{
	struct drive *d = arg;
	struct err e;

	if (r != REQUEST_RESET && r != REQUEST_HOST_RESET)
		loop_stop(&d->loop);
	else if (machine_reset(d->machine, &e) || machine_resume(d->machine, &e))
		loop_stop(&d->loop);
}

static int drive(struct drive *d, const struct config *c, struct err *e)
{
	const struct machine_events events = { on_request, d };
	char path[RUNTIME_PATH_MAX];
	struct tree t;

	d->tables[0] = (struct control_table){ machine_commands, &d->context };
	d->tables[1] = (struct control_table){ commands, d };
	if (tree_init(&t, e))
		return -1;
	if (config_tree(c, &t, e) || runtime_name_path(c->name, true, path, e) ||
	    machine_build(&t, ORIGIN_FRESH, device_models, &d->loop, &events, &d->machine, e) ||
	    machine_launch(d->machine, e) || machine_boot(d->machine, e) ||
	    control_open(&d->control, &d->loop, path, d->tables, e)) {
		tree_free(&t);
		return -1;
	}
	tree_free(&t);
	d->context = (struct command_context){ .machine = d->machine, .control = d->control };
	if (machine_resume(d->machine, e))
		return -1;
	loop_run(&d->loop);
	return 0;
}

int main(int argc, char **argv)
{
	struct drive d = { 0 };
	struct config c;
	struct err e;
	int rc;

	if (config_parse(&c, CONFIG_RUN, argc - 2, argv + 2, &e) || loop_init(&d.loop, &e)) {
		fprintf(stderr, "drive: %s\n", e.text);
		return 2;
	}
	rc = drive(&d, &c, &e);
	if (rc)
		fprintf(stderr, "drive: %s\n", e.text);
	if (d.machine)
		machine_destroy(d.machine);
	control_close(d.control);
	loop_free(&d.loop);
	config_free(&c);
	return rc != 0;
}
