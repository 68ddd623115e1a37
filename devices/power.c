/*
 * The power device: see power.h. Registers on vCPU threads, the button on the I/O thread; pending
 * events are atomic. Reading the event register is what acknowledges them.
 */
#include "devices/power.h"

#include <stdlib.h>

#include "vmm/base/err.h"
#include "vmm/device.h"
#include "vmm/irq.h"

#define POWER_PORTS	    8
#define POWER_SLEEP_ENABLE  0x20
#define POWER_SLEEP_TYPE(v) ((v) >> 2 & 7)

struct power_state {
	uint8_t events; /* POWER_EVENT_*, not read yet */
};

struct power {
	struct device dev; /* first */
	struct irq irq;
	struct power_state st; /* events: atomic */
	bool active;	       /* I/O thread */
};

static void power_fields(struct state *s, void *p)
{
	struct power_state *st = p;

	state_u8(s, "events", &st->events);
}

static int power_check(const void *p, struct err *e)
{
	const struct power_state *st = p;

	if (st->events & ~POWER_EVENT_BUTTON)
		return err_set(e, "'events' is 0x%x: only bit 0 is known", st->events);
	return 0;
}

static void power_write(struct power *d, uint64_t reg, uint8_t value)
{
	const struct device_env *env = d->dev.env;

	if (reg == POWER_SLEEP_CONTROL && value & POWER_SLEEP_ENABLE &&
	    POWER_SLEEP_TYPE(value) == POWER_S5)
		env->request(env->machine, REQUEST_POWEROFF);
	else if (reg == POWER_RESET && value == POWER_RESET_VALUE)
		env->request(env->machine, REQUEST_RESET);
}

static void power_access(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write)
{
	struct power *d = dev;
	uint8_t *bytes = value;
	unsigned int i;

	for (i = 0; i < len; i++) {
		if (is_write)
			power_write(d, offset + i, bytes[i]);
		else if (offset + i == POWER_EVENTS)
			bytes[i] = __atomic_exchange_n(&d->st.events, 0, __ATOMIC_ACQ_REL);
		else
			bytes[i] = 0;
	}
}

static void power_press_button(struct device *dev)
{
	struct power *d = (struct power *)dev;

	__atomic_fetch_or(&d->st.events, POWER_EVENT_BUTTON, __ATOMIC_ACQ_REL);
	if (d->active)
		irq_pulse(&d->irq);
}

static void power_destroy(struct device *dev)
{
	struct power *d = (struct power *)dev;

	irq_free(&d->irq);
	free(d);
}

static int power_create(const struct device_env *env, const struct tree *t, const char *path,
			struct device **out, struct err *e)
{
	struct power *d = calloc(1, sizeof(*d));
	struct device_window window;
	uint32_t gsi;

	if (!d)
		return err_set(e, "%s: out of memory", path);
	d->irq.fd = -1;
	if (device_init(&d->dev, &power_model, env, t, path, e) ||
	    device_find_window(env, t, path, POWER_PORTS, &window, e) ||
	    tree_u32(t, path, "interrupts", &gsi, e))
		goto fail;
	if (irq_init(&d->irq, env->kvm, gsi, e) ||
	    bus_add(window.bus, window.base, POWER_PORTS, power_access, d, e)) {
		err_context(e, "%s", path);
		goto fail;
	}
	*out = &d->dev;
	return 0;
fail:
	power_destroy(&d->dev);
	return -1;
}

static int power_activate(struct device *dev, struct err *e)
{
	struct power *d = (struct power *)dev;

	(void)e;
	d->active = true;
	if (__atomic_load_n(&d->st.events, __ATOMIC_ACQUIRE))
		irq_pulse(&d->irq);
	return 0;
}

static void power_quiesce(struct device *dev)
{
	((struct power *)dev)->active = false;
}

static void power_save(struct device *dev, void *st)
{
	struct power *d = (struct power *)dev;

	((struct power_state *)st)->events = __atomic_load_n(&d->st.events, __ATOMIC_ACQUIRE);
}

static void power_load(struct device *dev, const void *st)
{
	struct power *d = (struct power *)dev;

	__atomic_store_n(&d->st.events, ((const struct power_state *)st)->events, __ATOMIC_RELEASE);
}

static const struct state_desc power_state_desc = {
	.size = sizeof(struct power_state),
	.fields = power_fields,
	.check = power_check,
};

const struct device_model power_model = {
	.name = "power",
	.state = &power_state_desc,
	.create = power_create,
	.destroy = power_destroy,
	.activate = power_activate,
	.quiesce = power_quiesce,
	.save = power_save,
	.load = power_load,
	.press_power_button = power_press_button,
};
