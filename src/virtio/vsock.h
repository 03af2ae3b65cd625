/*
 * vsock: virtio-vsock (virtio 1.2, section 5.10), whose other side is Unix sockets of the host
 * (contract 3.5):
 *
 *	host to guest	connect to `uds_path`, say "CONNECT <port>\n", hear "OK <host port>\n"
 *	guest to host	a connection to port P of CID 2 becomes one to `<uds_path>_<P>`
 *
 * Streams, and SOCK_SEQPACKET where the driver took it: from the guest to `<uds_path>_<P>` of that
 * type, from the host through `<uds_path>.seq`.
 *
 * Everything a guest says is bounded: the number of connections, the bytes kept for a host that
 * does not read (VSOCK_CREDIT each, and only then), the work in one turn. A connection that breaks
 * the rules is reset, alone. Connections live through pause and resume; a machine that is loaded
 * from a snapshot starts without any, and its guest is told.
 *
 * Loop thread or a dispatcher under the machine lock.
 */
#ifndef VSOCK_H
#define VSOCK_H

#include "device.h"

#define VSOCK_PATH_MAX	108
#define VSOCK_CREDIT	KIB(128) /* what a guest may send before we have passed it on */
#define VSOCK_CONNS	1023
#define VSOCK_CONNS_MAX 65535

struct vsock_config {
	u32 guest_cid;
	char uds_path[VSOCK_PATH_MAX];
	u32 max_connections;
	int listen_fd, seq_fd; /* bound when it was configured; the configuration owns them */
};

/* What the device is, beside what every device is. */
struct vsock_state {
	u32 next_port;	    /* of the host's side: never used again, not even after a restore */
	bool reset_pending; /* the guest is still to be told that its connections are gone */
};

/* Named as the contract's metrics. */
struct vsock_metrics {
	u64 rx_bytes_count, tx_bytes_count, rx_packets_count, tx_packets_count;
	u64 conns_added, conns_killed, conns_removed, tx_write_fails, rx_read_fails;
};

struct vsock;

/*
 * Binds `uds_path` and `<uds_path>.seq` and listens. The line is the contract's. On error nothing
 * is left in the file system.
 */
int vsock_listen(struct vsock_config *cfg, struct err *err) MUST_CHECK;

/* Closes both and removes their names. */
void vsock_unlisten(struct vsock_config *cfg);

/* The device borrows the fds, copies the rest. */
int vsock_create(struct vsock **vsock, const struct vsock_config *cfg, const struct mem *mem,
		 struct loop *loop, struct err *err) MUST_CHECK;
void vsock_destroy(struct vsock *vsock);
struct device *vsock_device(struct vsock *vsock);

/* The machine came out of a snapshot: the connections that its guest remembers do not exist. */
void vsock_restored(struct vsock *vsock);

const struct vsock_state *vsock_state(const struct vsock *vsock);
const struct vsock_metrics *vsock_metrics(const struct vsock *vsock);
unsigned vsock_connections(const struct vsock *vsock);

#endif
