/*
 * The part that all devices share: see device.h.
 */
#include "vmm/device.h"

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

void device_host_path(const struct device *d, char path[TREE_PATH_MAX])
{
	snprintf(path, TREE_PATH_MAX, "/host/%s", d->id);
}
