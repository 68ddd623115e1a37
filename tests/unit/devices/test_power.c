/*
 * The power device: only the documented writes end or reset the machine, and a pressed button is
 * neither lost nor told twice.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/power.h"
#include "vmm/base/err.h"
#include "vmm/device.h"
#include "vmm/irq.h"

#define PORT 0x600u
#define NODE "/devices/power@600"

/* How every device with one line begins. */
struct with_irq {
	struct device dev;
	struct irq irq;
};

static struct bus ports;
static struct device_env env;
static struct tree tree;
static struct device *d;
static struct err e;
static unsigned int asked[REQUEST_QUIT + 1];

static void request(void *machine, enum machine_request r)
{
	(void)machine;
	asked[r]++;
}

static uint8_t in(unsigned int reg)
{
	uint8_t v = 0xaa;

	bus_access(&ports, PORT + reg, &v, 1, false);
	return v;
}

static void out(unsigned int reg, uint8_t v)
{
	bus_access(&ports, PORT + reg, &v, 1, true);
}

static unsigned int edges(void)
{
	uint64_t n = 0;

	return read(((struct with_irq *)d)->irq.fd, &n, sizeof(n)) < 0 ? 0 : (unsigned int)n;
}

static void setup(void)
{
	ck_assert_int_eq(tree_init(&tree, &e), 0);
	env = (struct device_env){ .port_bus = &ports, .request = request };
	tree_set_str(&tree, NODE, "model", "power", &e);
	tree_set_str(&tree, NODE, "id", "power", &e);
	tree_set_u32_pair(&tree, NODE, "port", PORT, 8, &e);
	tree_set_u32(&tree, NODE, "interrupts", 9, &e);
	ck_assert_msg(!power_model.create(&env, &tree, NODE, &d, &e), "%s", e.text);
	ck_assert_int_eq(power_model.activate(d, &e), 0);
}

static void teardown(void)
{
	power_model.destroy(d);
	tree_free(&tree);
}

START_TEST(only_s5_with_the_enable_bit_powers_off)
{
	unsigned int v;

	for (v = 0; v < 256; v++)
		out(POWER_SLEEP_CONTROL, (uint8_t)v);
	/* Bits 0, 1, 6 and 7 are not looked at. */
	ck_assert_uint_eq(asked[REQUEST_POWEROFF], 16);
	out(POWER_SLEEP_CONTROL, POWER_S5 << 2 | 0x20);
	ck_assert_uint_eq(asked[REQUEST_POWEROFF], 17);
	ck_assert_uint_eq(asked[REQUEST_RESET], 0);
	ck_assert_uint_eq(in(POWER_SLEEP_CONTROL), 0);
	ck_assert_uint_eq(in(POWER_SLEEP_STATUS), 0);
}
END_TEST

START_TEST(only_the_reset_value_resets)
{
	unsigned int v;

	for (v = 0; v < 256; v++)
		out(POWER_RESET, (uint8_t)v);
	ck_assert_uint_eq(asked[REQUEST_RESET], 1);
	for (v = POWER_EVENTS; v < 8; v++)
		out(v, 0xff);
	ck_assert_uint_eq(asked[REQUEST_RESET], 1);
	ck_assert_uint_eq(asked[REQUEST_POWEROFF], 0);
}
END_TEST

START_TEST(button_interrupts_and_is_told_once)
{
	ck_assert_uint_eq(in(POWER_EVENTS), 0);
	power_model.press_power_button(d);
	ck_assert_uint_eq(edges(), 1);
	ck_assert_uint_eq(in(POWER_EVENTS), POWER_EVENT_BUTTON);
	ck_assert_uint_eq(in(POWER_EVENTS), 0);
	ck_assert_uint_eq(edges(), 0);
}
END_TEST

START_TEST(button_pressed_while_parked_is_state_and_interrupts_later)
{
	void *st = calloc(1, power_model.state->size);

	power_model.quiesce(d);
	power_model.press_power_button(d);
	ck_assert_uint_eq(edges(), 0);
	power_model.save(d, st);
	in(POWER_EVENTS);
	power_model.load(d, st);
	ck_assert_int_eq(power_model.activate(d, &e), 0);
	ck_assert_uint_eq(edges(), 1);
	ck_assert_uint_eq(in(POWER_EVENTS), POWER_EVENT_BUTTON);
	free(st);
}
END_TEST

START_TEST(unknown_events_and_odd_nodes_are_refused)
{
	struct device *none;
	struct tree states;
	uint8_t st[64], events = 2;

	ck_assert_uint_le(power_model.state->size, sizeof(st));
	tree_init(&states, &e);
	tree_set_bytes(&states, NODE, "events", &events, 1, &e);
	ck_assert_int_eq(state_load(&states, NODE, power_model.state, st, &e), -1);
	ck_assert_msg(strstr(e.text, "only bit 0 is known"), "%s", e.text);
	tree_free(&states);
	tree_set_u32_pair(&tree, NODE, "port", PORT, 4, &e);
	ck_assert_int_eq(power_model.create(&env, &tree, NODE, &none, &e), -1);
	ck_assert_msg(strstr(e.text, "expected 8 ports"), "%s", e.text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("power");
	TCase *t = tcase_create("power");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	suite_add_tcase(s, t);
	tcase_add_test(t, only_s5_with_the_enable_bit_powers_off);
	tcase_add_test(t, only_the_reset_value_resets);
	tcase_add_test(t, button_interrupts_and_is_told_once);
	tcase_add_test(t, button_pressed_while_parked_is_state_and_interrupts_later);
	tcase_add_test(t, unknown_events_and_odd_nodes_are_refused);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
