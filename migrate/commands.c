/*
 * The control commands of migration: see commands.h. Names and fields are QEMU's. Runs on the
 * thread of the machine's owner.
 */
#include "migrate/commands.h"

#include <jansson.h>

#include "migrate/migration.h"
#include "vmm/base/err.h"
#include "vmm/memory.h"

static int migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)result;
	return migration_start(context, json_string_value(json_object_get(arguments, "uri")), e);
}

static int migrate_cancel(void *context, json_t *arguments, json_t **result, struct err *e)
{
	(void)arguments;
	(void)result;
	(void)e;
	migration_cancel(context);
	return 0;
}

static json_t *ram(const struct migration_report *r)
{
	uint64_t seen = r->seen_pages, normal = r->normal_pages;

	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "transferred", (json_int_t)r->bytes,
			 "remaining", (json_int_t)((r->total_pages - seen) * PAGE_SIZE), "total",
			 (json_int_t)(r->total_pages * PAGE_SIZE), "duplicate",
			 (json_int_t)(seen > normal ? seen - normal : 0), "normal",
			 (json_int_t)normal, "normal-bytes", (json_int_t)(normal * PAGE_SIZE),
			 "page-size", (json_int_t)PAGE_SIZE);
}

static int query_migrate(void *context, json_t *arguments, json_t **result, struct err *e)
{
	struct migration_report r;
	json_t *reply;

	(void)arguments;
	migration_query(context, &r);
	if (r.status == MIGRATION_NONE)
		reply = json_object();
	else
		reply = json_pack("{s:s,s:I,s:I,s:I,s:o}", "status",
				  migration_status_name(r.status), "total-time",
				  (json_int_t)r.total_ms, "setup-time", (json_int_t)r.setup_ms,
				  "downtime", (json_int_t)r.downtime_ms, "ram", ram(&r));
	if (reply && r.error[0])
		json_object_set_new(reply, "error-desc", json_string(r.error));
	*result = reply;
	return reply ? 0 : err_set(e, "out of memory");
}

static const struct control_argument migrate_arguments[] = {
	{ .name = "uri", .type = CONTROL_STRING, .required = true },
	{ .name = NULL },
};

const struct control_command migrate_commands[] = {
	{ .name = "migrate", .arguments = migrate_arguments, .run = migrate },
	{ .name = "migrate_cancel", .run = migrate_cancel },
	{ .name = "query-migrate", .run = query_migrate },
	{ .name = NULL },
};
