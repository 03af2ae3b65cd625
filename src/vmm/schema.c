/* schema: see schema.h. Order of fields is the order of error texts and of printing. */
#include "schema.h"

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

void schema_print_config(struct json_out *out, const struct config *cfg)
{
	json_put(out, "{");
	put_fixed(out, "balloon", "null");
	put_drives(out, cfg);
	put_part(out, "boot-source", cfg->boot.kernel_fd >= 0, &schema_boot, &cfg->boot);
	put_fixed(out, "cpu-config", "null");
	put_fixed(out, "logger", "null");
	put_part(out, "machine-config", true, &schema_machine, &cfg->machine);
	put_fixed(out, "metrics", "null");
	put_fixed(out, "mmds-config", "null");
	put_fixed(out, "network-interfaces", "[]");
	put_fixed(out, "vsock", "null");
	put_part(out, "entropy", cfg->entropy.present, &schema_entropy, &cfg->entropy);
	put_fixed(out, "pmem", "[]");
	put_fixed(out, "memory-hotplug", "null");
	json_put(out, "}");
}
