/*
 * config: the plain data a machine is made from, and the rules it must obey. Nothing here runs.
 *
 * A request is one of these structs too, filled by its JSON table (schema.h); config_put_*() checks
 * it against the rest, opens what it names, and only then stores it. Complete and valid after every
 * call: a request that fails leaves it as it was. Error lines are the contract's. The loop thread
 * only.
 *
 * The configuration owns the file descriptors in it (kernel, initrd, drives); the machine borrows
 * them and lives shorter.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "../boot/boot.h"
#include "../virtio/balloon.h"
#include "../virtio/blk.h"
#include "../virtio/limit.h"
#include "../virtio/net.h"
#include "../virtio/vsock.h"
#include "base.h"
#include "err.h"
#include "log.h"
#include "mem.h"

#define CONFIG_VCPUS_MAX  32
#define CONFIG_DRIVES_MAX LAYOUT_DEVICES_MAX
#define CONFIG_NETS_MAX	  LAYOUT_DEVICES_MAX
#define CONFIG_ID_MAX	  64

/* Deprecated names of feature sets: kept and shown again, not applied. */
enum config_template {
	CONFIG_TEMPLATE_NONE,
	CONFIG_TEMPLATE_C3,
	CONFIG_TEMPLATE_T2,
	CONFIG_TEMPLATE_T2S,
	CONFIG_TEMPLATE_T2CL,
	CONFIG_TEMPLATE_T2A,
	CONFIG_TEMPLATE_V1N1,
};

struct machine_config {
	u32 vcpu_count;
	u64 mem_mib;
	bool smt;
	bool track_dirty_pages;
	bool shareable; /* RAM is a memfd: it can be frozen without a copy */
	bool shareable_given;
	enum mem_pages huge_pages;
	bool pages_given;  /* of a request: it spelled huge_pages; true once stored */
	bool pages_chosen; /* of what is stored: by the user, else the monitor is free to choose */
	enum config_template cpu_template;
	bool template_given; /* of a request: it spelled the deprecated field; else: there is one */
};

struct drive_config {
	struct blk_config blk;
	struct limit_config limit;
	bool path_given;
	bool read_only_given, engine_given; /* of a request; true once stored */
	bool socket_given;
	char socket[108]; /* vhost-user, refused so far */
};

/* A change to a drive of a running machine. */
struct drive_patch {
	char id[DEVICE_ID_MAX + 1];
	char path[BLK_PATH_MAX];
	bool path_given;
	struct limit_config limit;
};

#define CONFIG_MAC_TEXT 17 /* xx:xx:xx:xx:xx:xx */

struct net_request {
	struct net_config net;
	char mac[CONFIG_MAC_TEXT + 1]; /* as text: lower case once stored */
	u32 mtu;
	bool mtu_given, pairs_given;
};

/* A change to the limits of a running machine's interface. */
struct net_patch {
	char id[DEVICE_ID_MAX + 1];
	struct limit_config rx_limit, tx_limit;
};

struct serial_config {
	char out_path[4096]; /* empty: stdin and stdout */
	struct limit_bucket limit;
	bool given;
};

struct entropy_config {
	bool present;
	struct limit_config limit;
};

struct balloon_request {
	bool present;
	struct balloon_config balloon;
};

struct vsock_request {
	bool present;
	struct vsock_config vsock;
	bool id_given; /* of a request: it spelled the deprecated vsock_id */
	char id[CONFIG_ID_MAX + 1];
	bool max_given;
};

struct config {
	struct machine_config machine;
	struct boot_config boot;
	struct drive_config
		drives[CONFIG_DRIVES_MAX]; /* root first, else in order of configuration */
	unsigned n_drives;
	struct net_request nets[CONFIG_NETS_MAX];
	unsigned n_nets;
	struct vsock_request vsock;
	struct balloon_request balloon;
	struct entropy_config entropy;
	struct serial_config serial;
	bool boot_timer;
	bool boot_specific; /* something that a snapshot load forbids was configured, or tried */
};

/* Defaults: 1 vCPU, 128 MiB, nothing else; all fds -1. */
void config_init(struct config *cfg);

/* Forgets all but what is no part of a machine: how this process was started. */
void config_forget(struct config *cfg);

/* Closes every fd it owns. */
void config_destroy(struct config *cfg);

/* What a PUT /machine-config starts from: defaults, but an earlier template stays. */
void config_machine_defaults(const struct config *cfg, struct machine_config *machine);

/* Each stores a copy of its request; the fds in the request are ignored, the paths are opened. */
int config_put_machine(struct config *cfg, const struct machine_config *req,
		       struct err *err) MUST_CHECK;
int config_put_boot(struct config *cfg, const struct boot_config *req, struct err *err) MUST_CHECK;
int config_put_drive(struct config *cfg, const struct drive_config *req,
		     struct err *err) MUST_CHECK;
int config_put_net(struct config *cfg, const struct net_request *req, struct err *err) MUST_CHECK;
int config_put_vsock(struct config *cfg, const struct vsock_request *req,
		     struct err *err) MUST_CHECK;
int config_put_balloon(struct config *cfg, const struct balloon_request *req,
		       struct err *err) MUST_CHECK;
int config_put_entropy(struct config *cfg, const struct entropy_config *req,
		       struct err *err) MUST_CHECK;
int config_put_serial(struct config *cfg, const struct serial_config *req,
		      struct err *err) MUST_CHECK;

/* NULL if there is none. */
struct drive_config *config_find_drive(struct config *cfg, const char *id);
struct net_request *config_find_net(struct config *cfg, const char *id);

/* Forgets buckets that do not limit, as they are shown and enforced. */
void config_accept_limit(struct limit_config *limit);

/* Letters, digits, `_`, at least one; the line is the contract's. */
int config_check_id(const char *id, struct err *err) MUST_CHECK;

#endif
