/*
 * tap: one queue of a host's tap interface, with virtio headers (linux/if_tun.h).
 *
 * The interface is made by somebody else, or by the kernel at the first open if that is allowed; we
 * never configure it. Frames travel with a header of TAP_HEADER bytes, so that checksums and
 * segmentation can be left to whoever does them best. No call blocks. Any thread.
 */
#ifndef TAP_H
#define TAP_H

#include "../vmm/base.h"
#include "../vmm/err.h"

#define TAP_NAME_MAX 15
#define TAP_HEADER   12 /* struct virtio_net_hdr_mrg_rxbuf, virtio 1.2, 5.1.6 */

/* What the reader of a tap can do with a frame that is not finished. */
enum tap_offload {
	TAP_CHECKSUM = 1,
	TAP_TSO4 = 2,
	TAP_TSO6 = 4,
	TAP_ECN = 8,
	TAP_UFO = 16,
	TAP_USO = 32 /* both families */
};

/*
 * One more queue of interface `name`; `multi`: it has, or will have, several. The fd, or a negative
 * errno with the contract's line.
 */
int tap_open(const char *name, bool multi, struct err *err) MUST_CHECK;

/* Sets what may come unfinished (a set of tap_offload); a negative errno if the kernel lacks some.
 */
int tap_offload(int fd, unsigned offloads);

/* A queue takes part in the traffic, or not. Only for interfaces with several. */
int tap_attach(int fd, bool attached);

#endif
