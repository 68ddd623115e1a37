/*
 * The machine's own control commands: see commands.h. The thread of the machine's owner, which is
 * the loop's. Invariant: a machine that is lent to a save or a migration is not touched.
 */
#include "vmm/control/commands.h"

#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/control/dispatch.h"
#include "vmm/control/server.h"
#include "vmm/machine.h"

static enum machine_status status_of(const struct command_context *c)
{
	return c->machine ? machine_status(c->machine) : MACHINE_INMIGRATE;
}

static const char *name_of(const struct command_context *c)
{
	return c->machine ? machine_name(c->machine) : c->name;
}

static bool is_lent(enum machine_status s)
{
	return s == MACHINE_INMIGRATE || s == MACHINE_FINISH_MIGRATE || s == MACHINE_POSTMIGRATE;
}

/* Why nothing can be done with the guest in that status; always -1. */
static int refuse(const struct command_context *c, const char *what, struct err *e)
{
	const char *name = name_of(c);

	switch (status_of(c)) {
	case MACHINE_INMIGRATE:
		return err_set(e, "cannot %s '%s': its guest has not arrived yet (inmigrate)", what,
			       name);
	case MACHINE_FINISH_MIGRATE:
		return err_set(e,
			       "cannot %s '%s': its guest is being saved or handed over "
			       "(finish-migrate)",
			       what, name);
	case MACHINE_POSTMIGRATE:
		return err_set(e,
			       "cannot %s '%s': its guest runs elsewhere or lies in a file "
			       "(postmigrate)",
			       what, name);
	case MACHINE_SHUTDOWN:
		return err_set(e, "cannot %s '%s': its guest has powered off (shutdown)", what,
			       name);
	case MACHINE_INTERNAL_ERROR:
		return err_set(e,
			       "cannot %s '%s': its guest met what KVM cannot run "
			       "(internal-error); reset it",
			       what, name);
	default:
		return err_set(e, "cannot %s '%s': its status is %s", what, name,
			       machine_status_name(status_of(c)));
	}
}

static int pack(json_t *made, json_t **result, struct err *e)
{
	*result = made;
	return made ? 0 : err_set(e, "out of memory");
}

static int query_version(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)context;
	(void)arguments;
	return pack(dispatch_version(), result, e);
}

static int query_status(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)arguments;
	return pack(json_pack("{s:s,s:b,s:b}", "status", machine_status_name(s), "singlestep", 0,
			      "running", s == MACHINE_RUNNING),
		    result, e);
}

static int query_name(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;

	(void)arguments;
	return pack(json_pack("{s:o}", "name", dispatch_text(name_of(c))), result, e);
}

static int query_cpus_fast(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	const char *compatible, *comma;
	json_t *list = json_array();
	char path[32];

	(void)arguments;
	if (!c->machine)
		return pack(list, result, e);
	if (tree_str(machine_tree(c->machine), "/", "compatible", &compatible, e)) {
		json_decref(list);
		return -1;
	}
	comma = strchr(compatible, ',');
	for (unsigned int i = 0; list && i < machine_n_vcpus(c->machine); i++) {
		json_t *cpu;

		snprintf(path, sizeof(path), "/machine/cpu[%u]", i);
		cpu = json_pack("{s:i,s:i,s:s,s:o,s:{}}", "cpu-index", (int)i, "thread-id",
				machine_vcpu_thread_id(c->machine, i), "qom-path", path, "target",
				dispatch_text(comma ? comma + 1 : compatible), "props");
		if (json_array_append_new(list, cpu)) {
			json_decref(list);
			list = NULL;
		}
	}
	return pack(list, result, e);
}

static void tell(const struct command_context *c, const char *event)
{
	if (c->control)
		control_event(c->control, event, NULL);
	log_verbose("event: %s", event);
}

/* Of a guest that is not here yet, as QEMU's. */
static int when_it_is_here(struct command_context *c, enum machine_arrival a)
{
	c->arrival = a;
	if (c->machine)
		machine_set_arrival(c->machine, a);
	return 0;
}

static int stop(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)arguments;
	(void)result;
	if (s == MACHINE_INMIGRATE)
		return when_it_is_here(c, ARRIVAL_PAUSED);
	if (is_lent(s))
		return refuse(c, "pause", e);
	/* What does not run needs no stopping, and keeps the status that says why. */
	if (s == MACHINE_RUNNING) {
		machine_park(c->machine);
		tell(c, "STOP");
	}
	return 0;
}

static int cont(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)arguments;
	(void)result;
	if (s == MACHINE_INMIGRATE)
		return when_it_is_here(c, ARRIVAL_RUNNING);
	if (s == MACHINE_RUNNING)
		return 0;
	if (s != MACHINE_PAUSED && s != MACHINE_PRELAUNCH && s != MACHINE_IO_ERROR)
		return refuse(c, "resume", e);
	if (machine_resume(c->machine, e))
		return -1;
	tell(c, "RESUME");
	return 0;
}

static int system_reset(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)arguments;
	(void)result;
	if (is_lent(s) || s == MACHINE_SHUTDOWN)
		return refuse(c, "reset", e);
	machine_request(c->machine, REQUEST_HOST_RESET);
	return 0;
}

static int system_powerdown(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)arguments;
	(void)result;
	if (is_lent(s) || s == MACHINE_SHUTDOWN || s == MACHINE_INTERNAL_ERROR)
		return refuse(c, "press the power button of", e);
	machine_press_power_button(c->machine);
	tell(c, "POWERDOWN");
	return 0;
}

static const struct control_argument balloon_arguments[] = {
	{ .name = "value", .type = CONTROL_INTEGER, .required = true, .min = 1, .max = INT64_MAX },
	{ .name = NULL },
};

static int balloon(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	enum machine_status s = status_of(c);

	(void)result;
	if (is_lent(s) || s == MACHINE_SHUTDOWN || s == MACHINE_INTERNAL_ERROR)
		return refuse(c, "balloon", e);
	return machine_set_balloon(
		c->machine, (uint64_t)json_integer_value(json_object_get(arguments, "value")), e);
}

static int query_balloon(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	uint64_t bytes;

	(void)arguments;
	if (!c->machine)
		return refuse(c, "ask for the balloon of", e);
	if (machine_balloon(c->machine, &bytes, e))
		return -1;
	return pack(json_pack("{s:I}", "actual", (json_int_t)bytes), result, e);
}

static const struct control_argument block_resize_arguments[] = {
	{ .name = "device", .type = CONTROL_STRING },
	{ .name = "node-name", .type = CONTROL_STRING },
	/* Without: as large as the image is now. */
	{ .name = "size", .type = CONTROL_INTEGER, .min = 1, .max = INT64_MAX },
	{ .name = NULL },
};

static int block_resize(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;
	const char *id = json_string_value(json_object_get(arguments, "device"));
	const char *node = json_string_value(json_object_get(arguments, "node-name"));
	json_t *size = json_object_get(arguments, "size");
	enum machine_status s = status_of(c);

	(void)result;
	/* A disk's id is both. */
	if (!id == !node)
		return err_set(e, "either 'device' or 'node-name' must say which disk");
	if (is_lent(s) || s == MACHINE_SHUTDOWN || s == MACHINE_INTERNAL_ERROR)
		return refuse(c, "resize a disk of", e);
	if (c->check_free && c->check_free(c->free_arg, e))
		return -1;
	return machine_resize_disk(c->machine, id ? id : node, (uint64_t)json_integer_value(size),
				   e);
}

static int quit(void *context, json_t *arguments, json_t **result, struct err *e)
{
	const struct command_context *c = context;

	(void)arguments;
	(void)result;
	(void)e;
	if (c->machine)
		machine_request(c->machine, REQUEST_QUIT);
	else
		c->quit(c->arg);
	return 0;
}

const struct control_command machine_commands[] = {
	{ .name = "query-version", .run = query_version },
	{ .name = "query-status", .run = query_status },
	{ .name = "query-name", .run = query_name },
	{ .name = "query-cpus-fast", .run = query_cpus_fast },
	{ .name = "stop", .run = stop },
	{ .name = "cont", .run = cont },
	{ .name = "system_reset", .run = system_reset },
	{ .name = "system_powerdown", .run = system_powerdown },
	{ .name = "balloon", .arguments = balloon_arguments, .run = balloon },
	{ .name = "query-balloon", .run = query_balloon },
	{ .name = "block_resize", .arguments = block_resize_arguments, .run = block_resize },
	{ .name = "quit", .run = quit },
	{ .name = NULL },
};
