/*
 * A tap interface of the host: see tap.h. An interface that does not exist is never made: a
 * mistyped name would leave one behind that carries nothing.
 */
#include "devices/backend/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/base/err.h"

#define TAP_DEVICE "/dev/net/tun"

static int open_device(struct err *e)
{
	int fd = open(TAP_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	switch (errno) {
	case EACCES:
	case EPERM:
		return err_set(e, "%s: no permission; run as root, or give this user access to it",
			       TAP_DEVICE);
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return err_set(e, "%s does not exist; load the module with: modprobe tun",
			       TAP_DEVICE);
	default:
		return err_errno(e, errno, "cannot open %s", TAP_DEVICE);
	}
}

static int refuse(int errnum, const char *name, struct err *e)
{
	switch (errnum) {
	case EBUSY:
		return err_set(e, "tap '%s' is in use by another process", name);
	case EPERM:
		return err_set(
			e,
			"tap '%s': no permission; run as root, or create it with: ip tuntap add %s "
			"mode tap user USER",
			name, name);
	case EINVAL:
	case ENODEV:
		return err_set(
			e,
			"'%s' is not a tap interface of one queue; create one with: ip tuntap "
			"add NAME mode tap",
			name);
	default:
		return err_errno(e, errnum, "tap '%s' cannot be used", name);
	}
}

int tap_open(const char *name, struct err *e)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = TAP_HEADER_BYTES, little = 1, fd;

	if (!*name || strlen(name) >= sizeof(ifr.ifr_name))
		return err_set(
			e,
			"'%s' is not the name of an interface: it has %zu characters, expected "
			"1 to %zu",
			name, strlen(name), sizeof(ifr.ifr_name) - 1);
	if (!if_nametoindex(name))
		return err_set(e,
			       "tap '%s' does not exist; create it with: ip tuntap add %s mode tap",
			       name, name);
	fd = open_device(e);
	if (fd < 0)
		return -1;
	memcpy(ifr.ifr_name, name, strlen(name) + 1);
	if (ioctl(fd, TUNSETIFF, &ifr)) {
		refuse(errno, name, e);
		goto fail;
	}
	/* The header's numbers are little endian in virtio 1; the kernel's own order needs no call.
	 */
	if (ioctl(fd, TUNSETVNETHDRSZ, &header) ||
	    (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ && ioctl(fd, TUNSETVNETLE, &little))) {
		err_errno(e, errno, "tap '%s' cannot carry virtio-net headers", name);
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return -1;
}

int tap_set_offload(int fd, unsigned int flags, struct err *e)
{
	if (ioctl(fd, TUNSETOFFLOAD, flags))
		return err_errno(e, errno, "the tap interface cannot offload 0x%x", flags);
	return 0;
}
