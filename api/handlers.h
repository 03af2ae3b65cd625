/*
 * handlers: what each request does, once routes.c has found out what it is. A handler gets a struct
 * that its table has filled, never JSON; it writes a body to `out`, or nothing (204), or an error
 * line. Loop thread.
 */
#ifndef HANDLERS_H
#define HANDLERS_H

#include "../src/vmm/instance.h"
#include "../src/vmm/json.h"
#include "../src/vmm/schema.h"
#include "http.h"

/* Any body; filled by its table. */
union body {
	struct machine_config machine;
	struct boot_config boot;
	struct drive_config drive;
	struct drive_patch drive_patch;
	struct net_request net;
	struct net_patch net_patch;
	struct vsock_request vsock;
	struct balloon_request balloon;
	struct schema_balloon_size balloon_size;
	struct schema_balloon_interval balloon_interval;
	struct schema_balloon_hint balloon_hint;
	struct entropy_config entropy;
	struct serial_config serial;
	struct log_config logger;
	struct schema_actions actions;
	struct schema_vm vm;
	struct snapshot_create_request snapshot_create;
	struct snapshot_share_request snapshot_share;
	struct snapshot_load_request snapshot_load;
};

/* One request being carried out. */
struct call {
	struct instance *inst;
	const struct http_request *req;
	char id[DEVICE_ID_MAX + 1]; /* the path's {id} */
	union body *body;
	struct json *doc; /* room for the tokens of the body */
	int given; /* fields of the body that were there */
	struct json_out *out;
	bool deprecated;
	struct err *err;
};

/* Sets what the body is decoded over, where zeros will not do. */
void handlers_prepare_machine_put(struct call *c);
void handlers_prepare_machine_patch(struct call *c);
void handlers_prepare_logger(struct call *c);
void handlers_prepare_hint(struct call *c);

/* 0, or a negative errno with the line for `fault_message`. */
int handlers_get_info(struct call *c);
int handlers_get_version(struct call *c);
int handlers_get_config(struct call *c);
int handlers_get_machine(struct call *c);
int handlers_put_machine(struct call *c);
int handlers_patch_machine(struct call *c);
int handlers_put_boot(struct call *c);
int handlers_put_drive(struct call *c);
int handlers_patch_drive(struct call *c);
int handlers_needs_pci(struct call *c);
int handlers_put_net(struct call *c);
int handlers_patch_net(struct call *c);
int handlers_put_vsock(struct call *c);
int handlers_get_balloon(struct call *c);
int handlers_put_balloon(struct call *c);
int handlers_patch_balloon(struct call *c);
int handlers_get_balloon_stats(struct call *c);
int handlers_patch_balloon_stats(struct call *c);
int handlers_hint_start(struct call *c);
int handlers_hint_stop(struct call *c);
int handlers_hint_status(struct call *c);
int handlers_put_entropy(struct call *c);
int handlers_put_serial(struct call *c);
int handlers_put_logger(struct call *c);
int handlers_put_action(struct call *c);
int handlers_patch_vm(struct call *c);
int handlers_create_snapshot(struct call *c);
int handlers_share_snapshot(struct call *c);
int handlers_get_live(struct call *c);
int handlers_load_snapshot(struct call *c);

#endif
