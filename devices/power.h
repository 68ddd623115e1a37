/*
 * The power device; vmm/power_ports.h has its registers.
 */
#ifndef GODWIT_DEVICES_POWER_H
#define GODWIT_DEVICES_POWER_H

#include "vmm/power_ports.h"

struct device_model;

extern const struct device_model power_model;

#endif
