/*
 * All device models: the table that main.c hands to the machine.
 */
#ifndef GODWIT_DEVICES_MODELS_H
#define GODWIT_DEVICES_MODELS_H

struct device_model;

/* NULL at the end. */
extern const struct device_model *const device_models[];

extern const struct device_model serial_model, power_model, i8042_model, virtio_blk_model,
	virtio_net_model, virtio_console_model, virtio_rng_model, virtio_balloon_model;

#endif
