/*
 * snapshot_request: what clients ask of snapshots, as plain data (contract 1.4). Filled by the tables
 * of schema.h, carried out by instance_snapshot.c.
 */
#ifndef SNAPSHOT_REQUEST_H
#define SNAPSHOT_REQUEST_H

#include "config.h"

#define SNAPSHOT_REQUEST_PATH 4096

struct snapshot_create_request {
	char state_path[SNAPSHOT_REQUEST_PATH];
	char mem_path[SNAPSHOT_REQUEST_PATH];
	int kind; /* enum snapshot_kind */
	bool live; /* the machine goes on */
};

/* What came of the last one that was live. */
struct live_progress {
	bool writing;
	bool failed; /* `fault` says why; the files are as they were */
	u64 pause_us;
	u64 bytes; /* of RAM */
	char fault[256];
};

enum snapshot_backend { SNAPSHOT_FILE, SNAPSHOT_UFFD, SNAPSHOT_TEMPLATE };

struct snapshot_share_request {
	char socket_path[SNAPSHOT_REQUEST_PATH];
};

struct snapshot_memory {
	char path[SNAPSHOT_REQUEST_PATH];
	enum snapshot_backend type;
	bool given;
};

/* A clone's own devices. */
struct net_override {
	char id[DEVICE_ID_MAX + 1];
	char host_dev[TAP_NAME_MAX + 1];
	char mac[CONFIG_MAC_TEXT + 1];
	bool mac_given;
};

struct drive_override {
	char id[DEVICE_ID_MAX + 1];
	char path[BLK_PATH_MAX];
};

struct vsock_override {
	char uds_path[VSOCK_PATH_MAX];
	bool given;
};

struct snapshot_load_request {
	char state_path[SNAPSHOT_REQUEST_PATH];
	struct snapshot_memory memory;
	char mem_path[SNAPSHOT_REQUEST_PATH]; /* the deprecated way */
	bool mem_path_given;
	bool track_dirty_pages, enable_diff_snapshots; /* accepted; diffs need neither */
	bool resume, realtime;
	bool prefetch; /* by the list of touched pages; makes one if there is none */
	int huge_pages;
	struct net_override net[CONFIG_NETS_MAX];
	unsigned n_nets;
	struct drive_override drive[CONFIG_DRIVES_MAX];
	unsigned n_drives;
	struct vsock_override vsock;
};

#endif
