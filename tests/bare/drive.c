/*
 * A VM like `godwit run`'s with commands that the program does not have, because only its migration
 * engine may use them: limits of vCPUs. For tests/bare; started as `drive run OPTION...`.
 *
 *     x-throttle {permille, cpu?}      machine_throttle, of one or of all
 *     x-log {on}                       the dirty log is started, or stopped
 *     x-fetch                          fetched and cleared; {pages}: how many were dirty
 *     x-dirty-limit {bytes}            machine_dirty_limit
 *     x-dirty-pages                    machine_vcpu_dirty_pages: [of each vCPU]
 *
 * beside the machine's own commands (stop, cont, quit, ...). It keeps its rights and knows no
 * migration. Everything is on the main thread's loop.
 */
#include <stdio.h>
#include <stdlib.h>

#include "devices/models.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/config.h"
#include "vmm/control/commands.h"
#include "vmm/control/runtime.h"
#include "vmm/control/server.h"
#include "vmm/control/table.h"
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
	for (unsigned int i = 0; i < machine_n_vcpus(d->machine); i++)
		if (!cpu || json_integer_value(cpu) == (json_int_t)i)
			machine_throttle(d->machine, i, (unsigned int)permille);
	return 0;
}

static const struct control_argument log_arguments[] = {
	{ .name = "on", .type = CONTROL_BOOLEAN, .required = true },
	{ .name = NULL },
};

static int set_log(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct drive *d = context;

	(void)result;
	if (json_is_true(json_object_get(arguments, "on")))
		return machine_log_start(d->machine, e);
	machine_log_stop(d->machine);
	return 0;
}

static int fetch_block(struct drive *d, unsigned int block, uint64_t *dirty, struct err *e)
{
	uint64_t pages = machine_memory(d->machine)->blocks[block].size / PAGE_SIZE;
	uint64_t *bits = calloc(BITMAP_WORDS(pages), sizeof(uint64_t));
	int rc;

	if (!bits)
		return err_set(e, "out of memory");
	rc = machine_log_fetch(d->machine, block, bits, e) ||
	     machine_log_clear(d->machine, block, 0, pages, bits, e);
	*dirty += bitmap_count(bits, pages);
	free(bits);
	return rc ? -1 : 0;
}

static int fetch(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct drive *d = context;
	uint64_t dirty = 0;

	(void)arguments;
	for (unsigned int i = 0; i < machine_memory(d->machine)->n_blocks; i++)
		if (fetch_block(d, i, &dirty, e))
			return -1;
	*result = json_pack("{s:I}", "pages", (json_int_t)dirty);
	return 0;
}

static const struct control_argument limit_arguments[] = {
	{ .name = "bytes", .type = CONTROL_INTEGER, .required = true },
	{ .name = NULL },
};

static int dirty_limit(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct drive *d = context;

	(void)result;
	return machine_dirty_limit(
		d->machine, (uint64_t)json_integer_value(json_object_get(arguments, "bytes")), e);
}

static int dirty_pages(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct drive *d = context;

	(void)arguments;
	(void)e;
	*result = json_array();
	for (unsigned int i = 0; i < machine_n_vcpus(d->machine); i++)
		json_array_append_new(
			*result, json_integer((json_int_t)machine_vcpu_dirty_pages(d->machine, i)));
	return 0;
}

static const struct control_command commands[] = {
	{ .name = "x-throttle", .arguments = throttle_arguments, .run = throttle },
	{ .name = "x-log", .arguments = log_arguments, .run = set_log },
	{ .name = "x-fetch", .run = fetch },
	{ .name = "x-dirty-limit", .arguments = limit_arguments, .run = dirty_limit },
	{ .name = "x-dirty-pages", .run = dirty_pages },
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
	const struct machine_events events = { on_request, d, NULL };
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
