/*
 * The runtime directory and the names in it: see runtime.h.
 */
#include "vmm/control/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"

#define NAME_MAX_CHARS 64

static int make_dir(const char *dir, mode_t mode, struct err *e)
{
	struct stat st;

	if (mkdir(dir, mode) && errno != EEXIST)
		return err_errno(e, errno, "cannot create the runtime directory %s", dir);
	if (stat(dir, &st))
		return err_errno(e, errno, "cannot use the runtime directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, "the runtime directory %s is not a directory", dir);
	return 0;
}

int runtime_dir(char dir[RUNTIME_PATH_MAX], bool create, struct err *e)
{
	const char *given = getenv("GODWIT_RUNTIME_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	mode_t mode = 0700;
	int n;

	if (given && *given) {
		n = snprintf(dir, RUNTIME_PATH_MAX, "%s", given);
	} else if (geteuid() == 0) {
		n = snprintf(dir, RUNTIME_PATH_MAX, "/run/godwit");
		mode = 0711; /* others may not open it: whoever can, can lock it */
	} else if (xdg && *xdg) {
		given = xdg;
		n = snprintf(dir, RUNTIME_PATH_MAX, "%s/godwit", xdg);
	} else {
		return err_set(e, "there is no directory for control sockets: neither "
				  "GODWIT_RUNTIME_DIR nor XDG_RUNTIME_DIR is set");
	}
	if (n >= RUNTIME_PATH_MAX)
		return err_set(
			e,
			"the runtime directory '%.40s...' has %d characters; a socket's path "
			"may have %d",
			given, n, RUNTIME_PATH_MAX - 1);
	return create ? make_dir(dir, mode, e) : 0;
}

int runtime_name_path(const char *name, bool create, char path[RUNTIME_PATH_MAX], struct err *e)
{
	char dir[RUNTIME_PATH_MAX], whole[RUNTIME_PATH_MAX + NAME_MAX_CHARS + 16];

	if (word_check_name("the VM's name", name, NAME_MAX_CHARS, e) ||
	    runtime_dir(dir, create, e))
		return -1;
	snprintf(whole, sizeof(whole), "%s/%s.sock", dir, name);
	if (unix_socket_check_path(whole, e))
		return -1;
	memcpy(path, whole, strlen(whole) + 1);
	return 0;
}

int runtime_vm_path(const char *vm, char path[RUNTIME_PATH_MAX], struct err *e)
{
	if (!strchr(vm, '/'))
		return runtime_name_path(vm, false, path, e);
	if (unix_socket_check_path(vm, e))
		return -1;
	memcpy(path, vm, strlen(vm) + 1);
	return 0;
}
