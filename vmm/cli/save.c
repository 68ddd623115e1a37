/*
 * godwit save VM FILE: the VM ends, FILE holds it. A client like any other: QMP `migrate` to a
 * file, followed by its events. Ctrl-C cancels and the guest runs on. Main thread of a short-lived
 * process; SIGINT and SIGTERM come through a signalfd.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

/* How often to ask, in case an event is lost. */
#define LOOK_MS 250

#define END_TIMEOUT_MS 30000

enum save_end { SAVE_GOES_ON, SAVE_DONE, SAVE_FAILED, SAVE_CANCELLED };

static enum save_end end_of(const char *status)
{
	if (!strcmp(status, "completed"))
		return SAVE_DONE;
	if (!strcmp(status, "failed"))
		return SAVE_FAILED;
	if (!strcmp(status, "cancelled"))
		return SAVE_CANCELLED;
	return SAVE_GOES_ON;
}

/* Asks query-migrate. SAVE_FAILED: with the reason as sentence. */
static enum save_end look(struct client *c, struct err *e)
{
	const char *status, *why;
	enum save_end end;
	json_t *result;

	/* A VM that has ended may have sent its last event before. */
	if (client_execute(c, "query-migrate", NULL, &result, e))
		return c->closed ? SAVE_GOES_ON : SAVE_FAILED;
	status = json_string_value(json_object_get(result, "status"));
	why = json_string_value(json_object_get(result, "error-desc"));
	end = end_of(status ? status : "");
	if (end == SAVE_FAILED)
		err_set(e, "%s", why ? why : "the VM could not be saved");
	json_decref(result);
	return end;
}

static enum save_end follow(struct client *c, struct err *e)
{
	enum save_end end = look(c, e);
	const char *status;
	json_t *event;

	while (end == SAVE_GOES_ON) {
		switch (client_event(c, LOOK_MS, &event, e)) {
		case CLIENT_EVENT:
			status = json_string_value(
				json_object_get(json_object_get(event, "data"), "status"));
			/* The VM may end right after this event. */
			if (!strcmp(client_event_name(event), "MIGRATION") && status)
				end = end_of(status);
			json_decref(event);
			if (end == SAVE_FAILED)
				end = look(c, e);
			break;
		case CLIENT_NOTHING:
			end = look(c, e);
			break;
		case CLIENT_STOPPED:
			if (client_cancel_if_interrupted(c, e) && !c->closed)
				end = SAVE_FAILED;
			break;
		case CLIENT_CLOSED:
			err_set(e, "'%s' has ended before it said that it was saved", c->name);
			end = SAVE_FAILED;
			break;
		case CLIENT_FAILED:
			end = SAVE_FAILED;
			break;
		}
	}
	return end;
}

static void print_done(const struct client *c, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		print_line(stdout, "saved '%s' to %s", c->name, path);
	else
		print_line(stdout, "saved '%s' to %s (%.1f MiB)", c->name, path,
			   (double)st.st_blocks * 512 / (1 << 20));
}

/* Returns the exit code; if it is not VERB_DONE, `e` has the sentence. */
static int save_vm(struct client *c, const char *path, struct err *e)
{
	char uri[PATH_MAX + 8];

	snprintf(uri, sizeof(uri), "file:%s", path);
	if (client_execute(c, "migrate", json_pack("{s:s}", "uri", uri), NULL, e))
		return VERB_FAILED;
	switch (follow(c, e)) {
	case SAVE_DONE:
		/* The VM stays for a while to answer questions. There are none, and if it has
		 * ended by itself meanwhile, that is as good. */
		client_execute(c, "quit", NULL, NULL, e);
		return client_wait_end(c, END_TIMEOUT_MS, e) ? VERB_FAILED : VERB_DONE;
	case SAVE_CANCELLED:
		err_set(e, "'%s' was not saved: cancelled, the guest runs on", c->name);
		return VERB_CANCELLED;
	default:
		return VERB_FAILED;
	}
}

int verb_save(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("save", 0, 2, argc, argv, &args), fd = -1;
	struct client c = { .fd = -1, .pidfd = -1 };
	char path[PATH_MAX];
	struct err e;

	if (rc >= 0)
		return rc;
	rc = VERB_FAILED;
	if (verb_absolute_path(args.file, path, sizeof(path), &e) == 0 &&
	    client_open(&c, args.vm, CLIENT_TIMEOUT_MS, &e) == 0 &&
	    (fd = verb_watch_interrupts(&e)) >= 0) {
		c.interrupt_fd = fd;
		rc = save_vm(&c, path, &e);
		close(fd);
	}
	if (rc == VERB_DONE) {
		print_done(&c, path);
		verb_output_lost("save");
	} else {
		verb_fail(&e, rc);
	}
	client_close(&c);
	return rc;
}
