/*
 * The power device; vmm/power_ports.h has its registers.
 */
#ifndef GODWIT_DEVICES_POWER_H
#define GODWIT_DEVICES_POWER_H

#include "vmm/power_ports.h"

struct device;
struct device_model;

extern const struct device_model power_model;

/* The person presses the power button; I/O thread or before it runs. */
void power_press_button(struct device *d);

#endif
