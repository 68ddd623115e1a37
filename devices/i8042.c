/*
 * A keyboard controller without keyboard: what a PC's software resets the machine by (Linux with
 * `reboot=k`). It first waits until the controller has room for a command, so the status must be
 * read somewhere: nobody's port reads as ones, and each of its ten tries then polls 65536 times.
 * Registers on vCPU threads; there is nothing to guard.
 *
 * ACPI does not tell of it (FADT: no 8042), so a guest looks for no keyboard here. All other
 * commands are ignored.
 */
#include <stdlib.h>

#include "devices/models.h"
#include "vmm/base/err.h"
#include "vmm/device.h"

/* From the first port on: five, of which those between the two are others'. */
#define I8042_PORTS  5
#define I8042_DATA   0
#define I8042_STATUS 4 /* read: 0, nothing to be taken and room for a command */

#define I8042_RESET 0xfe /* pulse the processors' reset line */

struct i8042 {
	struct device dev; /* first */
};

static void data_access(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write)
{
	(void)dev;
	(void)offset;
	if (!is_write)
		bus_answer(value, len, 0);
}

static void status_access(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write)
{
	const struct device_env *env = ((struct i8042 *)dev)->dev.env;

	(void)offset;
	if (!is_write)
		bus_answer(value, len, 0);
	else if ((uint8_t)bus_value(value, len) == I8042_RESET)
		env->request(env->machine, REQUEST_RESET);
}

static void i8042_destroy(struct device *dev)
{
	free(dev);
}

static int i8042_create(const struct device_env *env, const struct tree *t, const char *path,
			struct device **out, struct err *e)
{
	struct i8042 *d = calloc(1, sizeof(*d));
	struct device_window window;

	if (!d)
		return err_set(e, "%s: out of memory", path);
	if (device_init(&d->dev, &i8042_model, env, t, path, e) ||
	    device_find_window(env, t, path, I8042_PORTS, &window, e))
		goto fail;
	if (bus_add(window.bus, window.base + I8042_DATA, 1, data_access, d, e) ||
	    bus_add(window.bus, window.base + I8042_STATUS, 1, status_access, d, e)) {
		err_context(e, "%s", path);
		goto fail;
	}
	*out = &d->dev;
	return 0;
fail:
	i8042_destroy(&d->dev);
	return -1;
}

static int i8042_activate(struct device *dev, struct err *e)
{
	(void)dev;
	(void)e;
	return 0;
}

static void i8042_quiesce(struct device *dev)
{
	(void)dev;
}

const struct device_model i8042_model = {
	.name = "i8042",
	.stateless = "a command is done as soon as it is written, and no data are ever there",
	.create = i8042_create,
	.destroy = i8042_destroy,
	.activate = i8042_activate,
	.quiesce = i8042_quiesce,
};
