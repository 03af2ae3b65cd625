/* schema: see schema.h. Order of fields is the order of error texts and of printing. */
#include "schema.h"

#include "snapshot.h"

#define OBJECT(table, name_, ...)                                                                  \
	{                                                                                          \
		.name = (name_), .field = (table), .n = ARRAY_SIZE(table), __VA_ARGS__             \
	}

#define REQUIRED .flags = JSON_REQUIRED

/* ---- rate limits -------------------------------------------------------------------------- */

static const struct json_field bucket_fields[] = {
	{ JSON_FIELD("size", JSON_U64, struct limit_bucket, size), REQUIRED },
	{ JSON_FIELD("one_time_burst", JSON_U64, struct limit_bucket, burst),
	  JSON_GIVEN(struct limit_bucket, burst_given) },
	{ JSON_FIELD("refill_time", JSON_U64, struct limit_bucket, refill_ms), REQUIRED },
};
static const struct json_object bucket = OBJECT(bucket_fields, "TokenBucketConfig", .lax = true);

static const struct json_field limit_fields[] = {
	{ JSON_FIELD("bandwidth", JSON_OBJECT, struct limit_config, bandwidth),
	  JSON_GIVEN(struct limit_config, bandwidth.given), .object = &bucket },
	{ JSON_FIELD("ops", JSON_OBJECT, struct limit_config, ops),
	  JSON_GIVEN(struct limit_config, ops.given), .object = &bucket },
};
static const struct json_object limit = OBJECT(limit_fields, "RateLimiterConfig");

/* ---- machine-config ----------------------------------------------------------------------- */

static const struct json_name pages_name[] = {
	{ "None", MEM_PAGES_4K },
	{ "Transparent", MEM_PAGES_TRANSPARENT },
	{ "2M", MEM_PAGES_2M },
};
static const struct json_names pages_names = JSON_NAMES(pages_name);

static const struct json_name template_name[] = {
	{ "C3", CONFIG_TEMPLATE_C3 },	  { "T2", CONFIG_TEMPLATE_T2 },
	{ "T2S", CONFIG_TEMPLATE_T2S },	  { "T2CL", CONFIG_TEMPLATE_T2CL },
	{ "T2A", CONFIG_TEMPLATE_T2A },	  { "V1N1", CONFIG_TEMPLATE_V1N1 },
	{ "None", CONFIG_TEMPLATE_NONE },
};
static const struct json_names template_names = JSON_NAMES(template_name);

/* Twice, since PUT requires two of the fields and PATCH none. */
#define MACHINE_FIELDS(flags_)                                                                     \
	{ JSON_FIELD("vcpu_count", JSON_U8, struct machine_config, vcpu_count),                    \
	  .flags = (flags_) },                                                                     \
		{ JSON_FIELD("mem_size_mib", JSON_USIZE, struct machine_config, mem_mib),          \
		  .flags = (flags_) },                                                             \
		{ JSON_FIELD("smt", JSON_BOOL, struct machine_config, smt) },                      \
		{ JSON_FIELD("cpu_template", JSON_ENUM, struct machine_config, cpu_template),      \
		  .flags = JSON_OMIT, .names = &template_names,                                    \
		  JSON_GIVEN(struct machine_config, template_given) },                             \
		{ JSON_FIELD("track_dirty_pages", JSON_BOOL, struct machine_config,                \
			     track_dirty_pages) },                                                 \
		/* Ours. */                                                                        \
		{ JSON_FIELD("shareable", JSON_BOOL, struct machine_config, shareable),            \
		  .flags = JSON_OMIT, JSON_GIVEN(struct machine_config, shareable_given) },        \
	{                                                                                          \
		JSON_FIELD("huge_pages", JSON_ENUM, struct machine_config, huge_pages),            \
			.names = &pages_names,                                                     \
			JSON_GIVEN(struct machine_config, pages_given)                             \
	}

static const struct json_field machine_fields[] = { MACHINE_FIELDS(JSON_REQUIRED) };
static const struct json_field machine_patch_fields[] = { MACHINE_FIELDS(0) };
const struct json_object schema_machine = OBJECT(machine_fields, "MachineConfig");
const struct json_object schema_machine_patch = OBJECT(machine_patch_fields, "MachineConfigUpdate");

/* ---- boot-source -------------------------------------------------------------------------- */

static const struct json_field boot_fields[] = {
	{ JSON_FIELD("kernel_image_path", JSON_STRING, struct boot_config, kernel_path), REQUIRED },
	{ JSON_FIELD("initrd_path", JSON_STRING, struct boot_config, initrd_path) },
	{ JSON_FIELD("boot_args", JSON_STRING, struct boot_config, args),
	  JSON_GIVEN(struct boot_config, args_given) },
};
const struct json_object schema_boot = OBJECT(boot_fields, "BootSourceConfig");

/* ---- drives ------------------------------------------------------------------------------- */

static const struct json_name cache_name[] = {
	{ "Unsafe", BLK_UNSAFE },
	{ "Writeback", BLK_WRITEBACK },
};
static const struct json_names cache_names = JSON_NAMES(cache_name);

static const struct json_name engine_name[] = {
	{ "Sync", BLK_SYNC },
	{ "Async", BLK_ASYNC },
};
static const struct json_names engine_names = JSON_NAMES(engine_name);

static_assert(ARRAY_SIZE(cache_name) == BLK_CACHES && ARRAY_SIZE(engine_name) == BLK_ENGINES,
	      "a name for each");

static const struct json_field drive_fields[] = {
	{ JSON_FIELD("drive_id", JSON_STRING, struct drive_config, blk.id), REQUIRED },
	{ JSON_FIELD("partuuid", JSON_STRING, struct drive_config, blk.partuuid) },
	{ JSON_FIELD("is_root_device", JSON_BOOL, struct drive_config, blk.is_root), REQUIRED },
	{ JSON_FIELD("cache_type", JSON_ENUM, struct drive_config, blk.cache),
	  .names = &cache_names },
	{ JSON_FIELD("is_read_only", JSON_BOOL, struct drive_config, blk.read_only),
	  JSON_GIVEN(struct drive_config, read_only_given) },
	{ JSON_FIELD("path_on_host", JSON_STRING, struct drive_config, blk.path),
	  JSON_GIVEN(struct drive_config, path_given) },
	{ JSON_FIELD("rate_limiter", JSON_OBJECT, struct drive_config, limit),
	  JSON_GIVEN(struct drive_config, limit.given), .object = &limit },
	{ JSON_FIELD("io_engine", JSON_ENUM, struct drive_config, blk.engine),
	  JSON_GIVEN(struct drive_config, engine_given), .names = &engine_names },
	{ JSON_FIELD("socket", JSON_STRING, struct drive_config, socket),
	  JSON_GIVEN(struct drive_config, socket_given) },
};
const struct json_object schema_drive = OBJECT(drive_fields, "BlockDeviceConfig");

static const struct json_field drive_patch_fields[] = {
	{ JSON_FIELD("drive_id", JSON_STRING, struct drive_patch, id), REQUIRED },
	{ JSON_FIELD("path_on_host", JSON_STRING, struct drive_patch, path),
	  JSON_GIVEN(struct drive_patch, path_given) },
	{ JSON_FIELD("rate_limiter", JSON_OBJECT, struct drive_patch, limit),
	  JSON_GIVEN(struct drive_patch, limit.given), .object = &limit },
};
const struct json_object schema_drive_patch = OBJECT(drive_patch_fields, "BlockDeviceUpdateConfig");

/* ---- network interfaces --------------------------------------------------------------------- */

static const struct json_field net_fields[] = {
	{ JSON_FIELD("iface_id", JSON_STRING, struct net_request, net.id), REQUIRED },
	{ JSON_FIELD("host_dev_name", JSON_STRING, struct net_request, net.host_dev), REQUIRED },
	{ JSON_FIELD("guest_mac", JSON_STRING, struct net_request, mac),
	  JSON_GIVEN(struct net_request, net.mac_given) },
	{ JSON_FIELD("mtu", JSON_U32, struct net_request, mtu),
	  JSON_GIVEN(struct net_request, mtu_given) },
	{ JSON_FIELD("rx_rate_limiter", JSON_OBJECT, struct net_request, net.rx_limit),
	  JSON_GIVEN(struct net_request, net.rx_limit.given), .object = &limit },
	{ JSON_FIELD("tx_rate_limiter", JSON_OBJECT, struct net_request, net.tx_limit),
	  JSON_GIVEN(struct net_request, net.tx_limit.given), .object = &limit },
	/* Ours: several queues, for interfaces that have them. */
	{ JSON_FIELD("queue_pairs", JSON_U8, struct net_request, net.queue_pairs),
	  .flags = JSON_OMIT, JSON_GIVEN(struct net_request, pairs_given) },
};
const struct json_object schema_net = OBJECT(net_fields, "NetworkInterfaceConfig");

static const struct json_field net_patch_fields[] = {
	{ JSON_FIELD("iface_id", JSON_STRING, struct net_patch, id), REQUIRED },
	{ JSON_FIELD("rx_rate_limiter", JSON_OBJECT, struct net_patch, rx_limit),
	  JSON_GIVEN(struct net_patch, rx_limit.given), .object = &limit },
	{ JSON_FIELD("tx_rate_limiter", JSON_OBJECT, struct net_patch, tx_limit),
	  JSON_GIVEN(struct net_patch, tx_limit.given), .object = &limit },
};
const struct json_object schema_net_patch =
	OBJECT(net_patch_fields, "NetworkInterfaceUpdateConfig");

/* ---- vsock --------------------------------------------------------------------------------- */

static const struct json_field vsock_fields[] = {
	{ JSON_FIELD("guest_cid", JSON_U32, struct vsock_request, vsock.guest_cid), REQUIRED },
	{ JSON_FIELD("uds_path", JSON_STRING, struct vsock_request, vsock.uds_path), REQUIRED },
	{ JSON_FIELD("vsock_id", JSON_STRING, struct vsock_request, id), .flags = JSON_OMIT,
	  JSON_GIVEN(struct vsock_request, id_given) },
	/* Ours. */
	{ JSON_FIELD("max_connections", JSON_U32, struct vsock_request, vsock.max_connections),
	  .flags = JSON_OMIT, JSON_GIVEN(struct vsock_request, max_given) },
};
const struct json_object schema_vsock = OBJECT(vsock_fields, "VsockDeviceConfig");

/* ---- balloon ------------------------------------------------------------------------------ */

static const struct json_field balloon_fields[] = {
	{ JSON_FIELD("amount_mib", JSON_U32, struct balloon_request, balloon.amount_mib), REQUIRED },
	{ JSON_FIELD("deflate_on_oom", JSON_BOOL, struct balloon_request, balloon.deflate_on_oom),
	  REQUIRED },
	{ JSON_FIELD("stats_polling_interval_s", JSON_U16, struct balloon_request,
		     balloon.stats_interval_s) },
	{ JSON_FIELD("free_page_hinting", JSON_BOOL, struct balloon_request, balloon.hinting) },
	{ JSON_FIELD("free_page_reporting", JSON_BOOL, struct balloon_request,
		     balloon.reporting) },
};
const struct json_object schema_balloon = OBJECT(balloon_fields, "BalloonDeviceConfig");

static const struct json_field balloon_size_fields[] = {
	{ JSON_FIELD("amount_mib", JSON_U32, struct schema_balloon_size, amount_mib), REQUIRED },
};
const struct json_object schema_balloon_size = OBJECT(balloon_size_fields, "BalloonUpdateConfig");

static const struct json_field balloon_interval_fields[] = {
	{ JSON_FIELD("stats_polling_interval_s", JSON_U16, struct schema_balloon_interval, seconds),
	  REQUIRED },
};
const struct json_object schema_balloon_interval =
	OBJECT(balloon_interval_fields, "BalloonUpdateStatsConfig");

static const struct json_field balloon_hint_fields[] = {
	{ JSON_FIELD("acknowledge_on_stop", JSON_BOOL, struct schema_balloon_hint, acknowledge) },
};
const struct json_object schema_balloon_hint =
	OBJECT(balloon_hint_fields, "StartHintingCmd", .lax = true);

/* ---- entropy, serial, logger -------------------------------------------------------------- */

static const struct json_field entropy_fields[] = {
	{ JSON_FIELD("rate_limiter", JSON_OBJECT, struct entropy_config, limit),
	  JSON_GIVEN(struct entropy_config, limit.given), .object = &limit },
};
const struct json_object schema_entropy = OBJECT(entropy_fields, "EntropyDeviceConfig");

static const struct json_field serial_fields[] = {
	{ JSON_FIELD("serial_out_path", JSON_STRING, struct serial_config, out_path) },
	{ JSON_FIELD("rate_limiter", JSON_OBJECT, struct serial_config, limit),
	  JSON_GIVEN(struct serial_config, limit.given), .object = &bucket },
};
const struct json_object schema_serial = OBJECT(serial_fields, "SerialConfig");

static const struct json_name level_name[] = {
	{ "Off", LOG_OFF },   { "Trace", LOG_TRACE },  { "Debug", LOG_DEBUG }, { "Info", LOG_INFO },
	{ "Warn", LOG_WARN }, { "Warning", LOG_WARN }, { "Error", LOG_ERROR },
};
static const struct json_names level_names = { level_name, ARRAY_SIZE(level_name), true };

static const struct json_field logger_fields[] = {
	{ JSON_FIELD("log_path", JSON_STRING, struct log_config, path) },
	{ JSON_FIELD("level", JSON_ENUM, struct log_config, level), .names = &level_names },
	{ JSON_FIELD("show_level", JSON_BOOL, struct log_config, show_level) },
	{ JSON_FIELD("show_log_origin", JSON_BOOL, struct log_config, show_origin) },
	{ JSON_FIELD("module", JSON_STRING, struct log_config, module) },
};
const struct json_object schema_logger = OBJECT(logger_fields, "LoggerConfig");

/* ---- actions, vm -------------------------------------------------------------------------- */

static const struct json_name action_name[] = {
	{ "FlushMetrics", ACTION_FLUSH_METRICS },
	{ "InstanceStart", ACTION_START },
	{ "SendCtrlAltDel", ACTION_CTRL_ALT_DEL },
};
static const struct json_names action_names = JSON_NAMES(action_name);

static const struct json_field action_fields[] = {
	{ JSON_FIELD("action_type", JSON_ENUM, struct schema_actions, action), REQUIRED,
	  .names = &action_names },
};
const struct json_object schema_actions = OBJECT(action_fields, "ActionBody");

static const struct json_name paused_name[] = {
	{ "Paused", true },
	{ "Resumed", false },
};
static const struct json_names paused_names = JSON_NAMES(paused_name);

static const struct json_field vm_fields[] = {
	{ JSON_FIELD("state", JSON_ENUM, struct schema_vm, paused), REQUIRED,
	  .names = &paused_names },
};
const struct json_object schema_vm = OBJECT(vm_fields, "Vm");

/* ---- snapshots ------------------------------------------------------------------------------ */

static const struct json_name kind_name[] = {
	{ "Full", SNAPSHOT_FULL },
	{ "Diff", SNAPSHOT_DIFF },
};
static const struct json_names kind_names = JSON_NAMES(kind_name);

static const struct json_field snapshot_create_fields[] = {
	{ JSON_FIELD("snapshot_type", JSON_ENUM, struct snapshot_create_request, kind),
	  .names = &kind_names },
	{ JSON_FIELD("snapshot_path", JSON_STRING, struct snapshot_create_request, state_path),
	  REQUIRED },
	{ JSON_FIELD("mem_file_path", JSON_STRING, struct snapshot_create_request, mem_path),
	  REQUIRED },
	/* Ours. */
	{ JSON_FIELD("live", JSON_BOOL, struct snapshot_create_request, live) },
};
const struct json_object schema_snapshot_create =
	OBJECT(snapshot_create_fields, "CreateSnapshotParams");

static const struct json_field snapshot_share_fields[] = {
	{ JSON_FIELD("socket_path", JSON_STRING, struct snapshot_share_request, socket_path),
	  REQUIRED },
};
const struct json_object schema_snapshot_share =
	OBJECT(snapshot_share_fields, "ShareSnapshotParams");

static const struct json_name backend_name[] = {
	{ "File", SNAPSHOT_FILE },
	{ "Uffd", SNAPSHOT_UFFD },
	{ "Template", SNAPSHOT_TEMPLATE }, /* ours */
};
static const struct json_names backend_names = JSON_NAMES(backend_name);

static const struct json_field memory_fields[] = {
	{ JSON_FIELD("backend_path", JSON_STRING, struct snapshot_memory, path), REQUIRED },
	{ JSON_FIELD("backend_type", JSON_ENUM, struct snapshot_memory, type), REQUIRED,
	  .names = &backend_names },
};
static const struct json_object memory = OBJECT(memory_fields, "MemBackendConfig");

static const struct json_field net_override_fields[] = {
	{ JSON_FIELD("iface_id", JSON_STRING, struct net_override, id), REQUIRED },
	{ JSON_FIELD("host_dev_name", JSON_STRING, struct net_override, host_dev), REQUIRED },
	/* Ours. */
	{ JSON_FIELD("guest_mac", JSON_STRING, struct net_override, mac),
	  JSON_GIVEN(struct net_override, mac_given) },
};
static const struct json_object net_override =
	OBJECT(net_override_fields, "NetworkOverride", .lax = true);

static const struct json_field drive_override_fields[] = {
	{ JSON_FIELD("drive_id", JSON_STRING, struct drive_override, id), REQUIRED },
	{ JSON_FIELD("path_on_host", JSON_STRING, struct drive_override, path), REQUIRED },
};
static const struct json_object drive_override =
	OBJECT(drive_override_fields, "DriveOverride");

static const struct json_field vsock_override_fields[] = {
	{ JSON_FIELD("uds_path", JSON_STRING, struct vsock_override, uds_path), REQUIRED },
};
static const struct json_object vsock_override =
	OBJECT(vsock_override_fields, "VsockOverride", .lax = true);

#define LOAD struct snapshot_load_request

static const struct json_name load_pages_name[] = {
	{ "Snapshot", MEM_PAGES_ANY },
	{ "None", MEM_PAGES_4K },
	{ "Transparent", MEM_PAGES_TRANSPARENT },
	{ "2M", MEM_PAGES_2M },
};
static const struct json_names load_pages_names = JSON_NAMES(load_pages_name);

static const struct json_field snapshot_load_fields[] = {
	/* Required where it is not part of the template. */
	{ JSON_FIELD("snapshot_path", JSON_STRING, LOAD, state_path) },
	{ JSON_FIELD("mem_file_path", JSON_STRING, LOAD, mem_path),
	  JSON_GIVEN(LOAD, mem_path_given) },
	{ JSON_FIELD("mem_backend", JSON_OBJECT, LOAD, memory), JSON_GIVEN(LOAD, memory.given),
	  .object = &memory },
	{ JSON_FIELD("enable_diff_snapshots", JSON_BOOL, LOAD, enable_diff_snapshots) },
	{ JSON_FIELD("track_dirty_pages", JSON_BOOL, LOAD, track_dirty_pages) },
	{ JSON_FIELD("resume_vm", JSON_BOOL, LOAD, resume) },
	{ JSON_FIELD("network_overrides", JSON_LIST, LOAD, net), .object = &net_override,
	  .max = CONFIG_NETS_MAX, .count = offsetof(LOAD, n_nets) },
	{ JSON_FIELD("vsock_override", JSON_OBJECT, LOAD, vsock), JSON_GIVEN(LOAD, vsock.given),
	  .object = &vsock_override },
	{ JSON_FIELD("clock_realtime", JSON_BOOL, LOAD, realtime) },
	{ JSON_FIELD("huge_pages", JSON_ENUM, LOAD, huge_pages), .names = &load_pages_names },
	/* Ours. */
	{ JSON_FIELD("prefetch", JSON_BOOL, LOAD, prefetch) },
	/* Ours. */
	{ JSON_FIELD("drive_overrides", JSON_LIST, LOAD, drive), .object = &drive_override,
	  .max = CONFIG_DRIVES_MAX, .count = offsetof(LOAD, n_drives) },
};
const struct json_object schema_snapshot_load =
	OBJECT(snapshot_load_fields, "LoadSnapshotConfig");

/* ---- the whole configuration -------------------------------------------------------------- */

static void put_key(struct json_out *out, const char *key)
{
	json_put(out, out->buf[out->len - 1] == '{' ? "" : ",");
	json_put_string(out, key);
	json_put(out, ":");
}

static void put_part(struct json_out *out, const char *key, bool present,
		     const struct json_object *object, const void *from)
{
	put_key(out, key);
	if (present)
		json_put_object(out, object, from);
	else
		json_put(out, "null");
}

static void put_fixed(struct json_out *out, const char *key, const char *text)
{
	put_key(out, key);
	json_put(out, text);
}

static void put_drives(struct json_out *out, const struct config *cfg)
{
	put_key(out, "drives");
	json_put(out, "[");
	for (unsigned i = 0; i < cfg->n_drives; i++) {
		json_put(out, i ? "," : "");
		json_put_object(out, &schema_drive, &cfg->drives[i]);
	}
	json_put(out, "]");
}

static void put_nets(struct json_out *out, const struct config *cfg)
{
	put_key(out, "network-interfaces");
	json_put(out, "[");
	for (unsigned i = 0; i < cfg->n_nets; i++) {
		json_put(out, i ? "," : "");
		json_put_object(out, &schema_net, &cfg->nets[i]);
	}
	json_put(out, "]");
}

void schema_print_config(struct json_out *out, const struct config *cfg)
{
	json_put(out, "{");
	put_part(out, "balloon", cfg->balloon.present, &schema_balloon, &cfg->balloon);
	put_drives(out, cfg);
	put_part(out, "boot-source", cfg->boot.kernel_path[0], &schema_boot, &cfg->boot);
	put_fixed(out, "cpu-config", "null");
	put_fixed(out, "logger", "null");
	put_part(out, "machine-config", true, &schema_machine, &cfg->machine);
	put_fixed(out, "metrics", "null");
	put_fixed(out, "mmds-config", "null");
	put_nets(out, cfg);
	put_part(out, "vsock", cfg->vsock.present, &schema_vsock, &cfg->vsock);
	put_part(out, "entropy", cfg->entropy.present, &schema_entropy, &cfg->entropy);
	put_fixed(out, "pmem", "[]");
	put_fixed(out, "memory-hotplug", "null");
	json_put(out, "}");
}
