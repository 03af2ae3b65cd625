/*
 * config: the plain data a machine is made from. Nothing here runs.
 *
 * Filled by the API or the configuration file, field by field, through tables (config.c) that name
 * each field once for reading and for printing. Complete and valid after every call: a request that
 * fails leaves it as it was. The loop thread only.
 *
 * The configuration owns the file descriptors in it (kernel, initrd, drives); the machine borrows
 * them and lives shorter.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "../boot/boot.h"
#include "../virtio/blk.h"
#include "../virtio/limit.h"
#include "base.h"
#include "err.h"
#include "log.h"
#include "mem.h"

#define CONFIG_VCPUS_MAX 32
#define CONFIG_DRIVES_MAX LAYOUT_DEVICES_MAX
#define CONFIG_ID_MAX	 64

struct machine_config {
	u32 vcpu_count;
	u64 mem_mib;
	bool smt;
	bool track_dirty_pages;
	enum mem_pages huge_pages;
	char cpu_template[16]; /* as given; empty: none */
};

struct drive_config {
	struct blk_config blk;
	struct limit_config limit;
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

struct config {
	struct machine_config machine;
	struct boot_config boot;
	struct drive_config drives[CONFIG_DRIVES_MAX]; /* root first, else in order of configuration */
	unsigned n_drives;
	struct entropy_config entropy;
	struct serial_config serial;
	bool boot_timer;
	bool boot_specific; /* something that a snapshot load forbids was configured, or tried */
};

/* Defaults: 1 vCPU, 128 MiB, nothing else; all fds -1. */
void config_init(struct config *cfg);

/* Closes every fd it owns. */
void config_destroy(struct config *cfg);

#endif
