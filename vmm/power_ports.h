/*
 * The ports of the power device: sleep, reset and the power button of a hardware-reduced ACPI
 * machine (ACPI 6.4, sections 4.8.3.7, 4.8.3.8, 5.6.9). The device answers there
 * (devices/power.c), the ACPI tables tell the guest of them. Eight ports:
 *
 *   +0  sleep control, write: SLP_TYP << 2 | SLP_EN (0x20); type POWER_S5 powers off
 *   +1  sleep status, reads 0
 *   +2  reset: writing POWER_RESET_VALUE reboots
 *   +3  events, read: a bit for each event since the last read (bit 0: power button); reading
 *       clears them. The generic event device's interrupt says that there are some.
 */
#ifndef GODWIT_POWER_PORTS_H
#define GODWIT_POWER_PORTS_H

#define POWER_SLEEP_CONTROL 0
#define POWER_SLEEP_STATUS  1
#define POWER_RESET	    2
#define POWER_EVENTS	    3

#define POWER_S5	   5
#define POWER_RESET_VALUE  1
#define POWER_EVENT_BUTTON 1

#endif
