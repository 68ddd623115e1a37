/*
 * The table of all device models: see models.h. Constant.
 */
#include "devices/models.h"

#include <stddef.h>

const struct device_model *const device_models[] = {
	&serial_model,	   &power_model,	  &i8042_model,
	&virtio_blk_model, &virtio_net_model,	  &virtio_console_model,
	&virtio_rng_model, &virtio_balloon_model, NULL, /* the end */
};
