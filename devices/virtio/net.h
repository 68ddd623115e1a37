/*
 * The network device, to those who move a guest: its new place in the network must be learnt.
 */
#ifndef GODWIT_VIRTIO_NET_H
#define GODWIT_VIRTIO_NET_H

struct device;

/* Asks the guest to announce its addresses (gratuitous ARP), if its driver can. I/O thread, or
 * before it runs. Returns nothing: a guest that cannot is not told. */
void net_announce(struct device *d);

#endif
