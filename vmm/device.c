/*
 * The part that all devices share. For the models' create; nothing else knows a device's node.
 */
#include "vmm/device.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/err.h"

int device_init(struct device *d, const struct device_model *model, const struct device_env *env,
		const struct tree *t, const char *path, struct err *e)
{
	const char *id;

	if (tree_str(t, path, "id", &id, e))
		return -1;
	if (strlen(id) >= sizeof(d->id))
		return err_set(e, "%s: 'id' is longer than %zu characters", path,
			       sizeof(d->id) - 1);
	d->model = model;
	d->env = env;
	snprintf(d->path, sizeof(d->path), "%s", path);
	snprintf(d->id, sizeof(d->id), "%s", id);
	return 0;
}

static int find_memory_window(const struct device_env *env, const struct tree *t, const char *path,
			      uint32_t bytes, struct device_window *w, struct err *e)
{
	uint64_t size;

	if (!tree_has(t, path, "reg"))
		return err_set(e, "%s: there is neither 'port' nor 'reg'", path);
	w->bus = env->mmio_bus;
	if (tree_u64_pair(t, path, "reg", &w->base, &size, e))
		return -1;
	if (size != bytes)
		return err_set(e,
			       "%s: there is no 'port', and 'reg' has %" PRIu64
			       " bytes, expected %" PRIu32,
			       path, size, bytes);
	return 0;
}

int device_find_window(const struct device_env *env, const struct tree *t, const char *path,
		       uint32_t bytes, struct device_window *w, struct err *e)
{
	uint32_t port, ports;

	if (!tree_has(t, path, "port"))
		return find_memory_window(env, t, path, bytes, w, e);
	if (tree_u32_pair(t, path, "port", &port, &ports, e))
		return -1;
	if (ports != bytes || port > 0x10000 - bytes)
		return err_set(e, "%s: 'port' is <0x%x %u>, expected %u ports below 0x10000", path,
			       port, ports, bytes);
	*w = (struct device_window){ env->port_bus, port };
	return 0;
}

void device_host_path(const struct device *d, char path[TREE_PATH_MAX])
{
	snprintf(path, TREE_PATH_MAX, "/host/%s", d->id);
}
