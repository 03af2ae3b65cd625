/*
 * schema: how every request and every part of the configuration looks in JSON. Tables only, each
 * field named once, for reading and for printing; the rules are in config.c.
 *
 * A row's struct is what json_decode() fills. `*_patch` reads the same struct with every field
 * optional: decoded over the present value it is a PATCH.
 */
#ifndef SCHEMA_H
#define SCHEMA_H

#include "config.h"
#include "json.h"
#include "snapshot_request.h"

/* PUT /actions */
enum schema_action { ACTION_START, ACTION_FLUSH_METRICS, ACTION_CTRL_ALT_DEL };

struct schema_actions {
	enum schema_action action;
};

/* PATCH /balloon, /balloon/statistics, /balloon/hinting/start */
struct schema_balloon_size {
	u32 amount_mib;
};

struct schema_balloon_interval {
	u16 seconds;
};

struct schema_balloon_hint {
	bool acknowledge;
};

/* PATCH /vm */
struct schema_vm {
	bool paused;
};

extern const struct json_object schema_snapshot_create; /* struct snapshot_create_request */
extern const struct json_object schema_snapshot_share;  /* struct snapshot_share_request */
extern const struct json_object schema_snapshot_load;	/* struct snapshot_load_request */
extern const struct json_object schema_machine;	      /* struct machine_config */
extern const struct json_object schema_machine_patch; /* struct machine_config */
extern const struct json_object schema_boot;	      /* struct boot_config */
extern const struct json_object schema_drive;	      /* struct drive_config */
extern const struct json_object schema_drive_patch;   /* struct drive_patch */
extern const struct json_object schema_net;	      /* struct net_request */
extern const struct json_object schema_net_patch;     /* struct net_patch */
extern const struct json_object schema_vsock;	      /* struct vsock_request */
extern const struct json_object schema_balloon;	      /* struct balloon_request */
extern const struct json_object schema_balloon_size;
extern const struct json_object schema_balloon_interval;
extern const struct json_object schema_balloon_hint;
extern const struct json_object schema_entropy;	      /* struct entropy_config */
extern const struct json_object schema_serial;	      /* struct serial_config */
extern const struct json_object schema_logger;	      /* struct log_config */
extern const struct json_object schema_actions;	      /* struct schema_actions */
extern const struct json_object schema_vm;	      /* struct schema_vm */

/* GET /vm/config: every key of the contract, absent devices null. */
void schema_print_config(struct json_out *out, const struct config *cfg);

#endif
