/*
 * godwit list [--json]: the VMs whose sockets are in the runtime directory. Stale sockets are
 * removed. Main thread of a short-lived process.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/print.h"
#include "vmm/base/words.h"
#include "vmm/cli/client.h"
#include "vmm/cli/verb.h"

#define LIST_TIMEOUT_MS 2000

/* Whether it is NAME.sock, where NAME may be the name of a VM. */
static int is_socket_name(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	char name[256];

	if (n < 6 || n >= sizeof(name) || strcmp(d->d_name + n - 5, ".sock"))
		return 0;
	memcpy(name, d->d_name, n - 5);
	name[n - 5] = '\0';
	return word_check_name("name", name, 64, NULL) == 0;
}

/* Adds the VM to the list, unless nobody answers at its socket. */
static void look_at(const char *name, json_t *list)
{
	char status[32];
	struct client c;
	struct err e;
	bool running;
	int rc;

	rc = client_open(&c, name, LIST_TIMEOUT_MS, &e);
	if (rc == 0)
		rc = client_status(&c, status, &running, &e);
	if (rc && c.found == UNIX_SOCKET_STALE)
		unix_socket_remove_stale(c.path);
	else if (rc && c.found == UNIX_SOCKET_UNKNOWN)
		snprintf(status, sizeof(status), "not-accessible");
	else if (rc && c.found == UNIX_SOCKET_ANSWERS)
		snprintf(status, sizeof(status), "no-answer");
	/* A VM that ended while it was asked is not listed. */
	if (c.found == UNIX_SOCKET_UNKNOWN || (c.found == UNIX_SOCKET_ANSWERS && !c.closed))
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:i,s:s}", "name", name, "status", status,
						"pid", (int)c.pid, "control", c.path));
	client_close(&c);
}

static int collect(json_t *list, struct err *e)
{
	char dir[RUNTIME_PATH_MAX];
	struct dirent **found;
	int n;

	if (runtime_dir(dir, false, e))
		return -1;
	n = scandir(dir, &found, is_socket_name, alphasort);
	/* No directory: no VM was ever started. */
	if (n < 0)
		return errno == ENOENT ? 0
				       : err_errno(e, errno, "cannot list the directory %s", dir);
	for (int i = 0; i < n; i++) {
		found[i]->d_name[strlen(found[i]->d_name) - 5] = '\0';
		look_at(found[i]->d_name, list);
		free(found[i]);
	}
	free(found);
	return 0;
}

static void print_table(const json_t *list)
{
	size_t i;
	json_t *vm;

	print_line(stdout, "%-24s %-16s %s", "NAME", "STATUS", "PID");
	json_array_foreach(list, i, vm)
	{
		int pid = (int)json_integer_value(json_object_get(vm, "pid"));
		char number[16] = "-";

		if (pid > 0)
			snprintf(number, sizeof(number), "%d", pid);
		print_line(stdout, "%-24s %-16s %s", json_string_value(json_object_get(vm, "name")),
			   json_string_value(json_object_get(vm, "status")), number);
	}
}

int verb_list(int argc, char **argv)
{
	struct verb_args args = { 0 };
	int rc = verb_parse("list", VERB_JSON, 0, argc, argv, &args);
	json_t *list;
	struct err e;

	if (rc >= 0)
		return rc;
	list = json_array();
	rc = collect(list, &e);
	if (rc == 0 && args.json) {
		verb_print_json(list);
	} else if (rc == 0) {
		print_table(list);
	}
	json_decref(list);
	return rc ? verb_fail(&e, VERB_FAILED) : VERB_DONE;
}
