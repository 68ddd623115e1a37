/*
 * Where control sockets are: the runtime directory and names of VMs. No state; any thread.
 */
#ifndef GODWIT_CONTROL_RUNTIME_H
#define GODWIT_CONTROL_RUNTIME_H

#include <stdbool.h>

#include "vmm/base/unix_socket.h"

struct err;

#define RUNTIME_PATH_MAX UNIX_SOCKET_PATH_MAX

/*
 * The runtime directory: $GODWIT_RUNTIME_DIR, else /run/godwit for root, else
 * $XDG_RUNTIME_DIR/godwit. `create` makes it when it is missing (0711 for /run/godwit, else 0700).
 */
int runtime_dir(char dir[RUNTIME_PATH_MAX], bool create, struct err *e);

/* The socket of the VM called `name`; `create` as above. */
int runtime_name_path(const char *name, bool create, char path[RUNTIME_PATH_MAX], struct err *e);

/* The socket that an operand means: one with a '/' is the path itself, else it is a name. */
int runtime_vm_path(const char *vm, char path[RUNTIME_PATH_MAX], struct err *e);

#endif
