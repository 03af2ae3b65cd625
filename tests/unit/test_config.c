/* config: the rules, that a refused request leaves no trace, printing, and the configuration file.
 */
#include "test.h"

#include "src/vmm/instance.h"
#include "src/vmm/schema.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define complain(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static char dir[] = "/tmp/mayfly-config-XXXXXX";
static char disk_a[64], disk_b[64], kernel[64], file[64];
static struct instance *inst;
static struct config *cfg;
static struct err err;
static struct json doc;

static void make_file(char *path, size_t size, const char *name, const char *text)
{
	FILE *f;

	snprintf(path, size, "%s/%s", dir, name);
	f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static struct loop *loop;
static int fds_before;

static int fresh(void **state)
{
	struct vm_callbacks none = { 0 };

	(void)state;
	fds_before = open_fds();
	assert_int_equal(loop_create(&loop, &err), 0);
	assert_int_equal(instance_create(&inst, "x", loop, &none, &err), 0);
	cfg = &inst->config;
	return 0;
}

static int gone(void **state)
{
	(void)state;
	instance_destroy(inst);
	loop_destroy(loop);
	assert_int_equal(open_fds(), fds_before);
	return 0;
}

/* ---- requests ------------------------------------------------------------------------------- */

static void fill(const struct json_object *table, void *body, const char *text)
{
	if (json_parse(&doc, text, strlen(text), &err) < 0 ||
	    json_decode(&doc, JSON_ROOT, table, body, &err) < 0)
		complain("%s: %s", text, err.msg);
}

static int put_machine(const char *text)
{
	struct machine_config m;

	config_machine_defaults(cfg, &m);
	fill(&schema_machine, &m, text);
	return config_put_machine(cfg, &m, &err);
}

static int put_boot(const char *path, const char *initrd, const char *args)
{
	struct boot_config b = { .args_given = args != NULL };

	strcpy(b.kernel_path, path);
	strcpy(b.initrd_path, initrd);
	strcpy(b.args, args ? args : "");
	return config_put_boot(cfg, &b, &err);
}

static int put_drive(const char *fmt, ...) PRINTF(1, 2);
static int put_drive(const char *fmt, ...)
{
	static struct drive_config d;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	memset(&d, 0, sizeof d);
	fill(&schema_drive, &d, text);
	return config_put_drive(cfg, &d, &err);
}

static const char *order(void)
{
	static char ids[256];

	ids[0] = '\0';
	for (unsigned i = 0; i < cfg->n_drives; i++)
		strcat(strcat(ids, cfg->drives[i].blk.id), " ");
	return ids;
}

static const char *print(void)
{
	static char text[8192];
	struct json_out out = { .buf = text, .size = sizeof text };

	schema_print_config(&out, cfg);
	assert_false(out.overflow);
	assert_int_equal(json_check(text, out.len, &err), 0);
	return text;
}

#define DRIVE(id, root, path)                                                                      \
	"{\"drive_id\":\"" id "\",\"is_root_device\":" root ",\"path_on_host\":\"%s\"}", path

/* ---- machine -------------------------------------------------------------------------------- */

static void has_one_cpu_and_128_mib_at_first(void **state)
{
	(void)state;
	assert_string_equal(
		print(),
		"{\"balloon\":null,\"drives\":[],\"boot-source\":null,\"cpu-config\":null,"
		"\"logger\":null,\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":"
		"false,\"track_dirty_pages\":false,\"huge_pages\":\"None\"},\"metrics\":null,"
		"\"mmds-config\":null,\"network-interfaces\":[],\"vsock\":null,\"entropy\":null,"
		"\"pmem\":[],\"memory-hotplug\":null}");
}

static void checks_processors_and_memory(void **state)
{
	static const char cpus[] =
		"Machine config error: The number of vCPUs must be greater than 0, "
		"less than 32 and must be 1 or an even number if SMT is enabled.";
	static const char mem[] =
		"Machine config error: The memory size (MiB) is either 0, or not a "
		"multiple of the configured page size.";
	static const struct {
		const char *body, *says;
	} rows[] = {
		{ "{\"vcpu_count\":0,\"mem_size_mib\":1}", cpus },
		{ "{\"vcpu_count\":33,\"mem_size_mib\":1}", cpus },
		{ "{\"vcpu_count\":3,\"mem_size_mib\":1,\"smt\":true}", cpus },
		{ "{\"vcpu_count\":1,\"mem_size_mib\":0}", mem },
		{ "{\"vcpu_count\":1,\"mem_size_mib\":3,\"huge_pages\":\"2M\"}", mem },
		{ "{\"vcpu_count\":1,\"mem_size_mib\":3,\"huge_pages\":\"Transparent\"}", mem },
		{ "{\"vcpu_count\":1,\"mem_size_mib\":17592186044416}",
		  "Machine config error: The memory size (MiB) is larger than 4294967296, the most "
		  "that "
		  "a guest can address." },
		{ "{\"vcpu_count\":32,\"mem_size_mib\":1}", NULL },
		{ "{\"vcpu_count\":1,\"mem_size_mib\":4294967296,\"smt\":true}", NULL },
		{ "{\"vcpu_count\":2,\"mem_size_mib\":4,\"smt\":true,\"huge_pages\":\"2M\"}",
		  NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct machine_config before = cfg->machine;
		int r = put_machine(rows[i].body);

		if (!rows[i].says) {
			assert_int_equal(r, 0);
			continue;
		}
		assert_int_equal(r, -EINVAL);
		assert_string_equal(err.msg, rows[i].says);
		assert_memory_equal(&before, &cfg->machine, sizeof before);
	}
}

static void a_put_resets_all_but_the_template(void **state)
{
	(void)state;
	assert_int_equal(put_machine("{\"vcpu_count\":2,\"mem_size_mib\":4,\"smt\":true,"
				     "\"track_dirty_pages\":true,\"cpu_template\":\"T2\"}"),
			 0);
	assert_non_null(strstr(print(), "\"smt\":true,\"cpu_template\":\"T2\",\"track"));
	assert_int_equal(put_machine("{\"vcpu_count\":1,\"mem_size_mib\":4}"), 0);
	assert_non_null(strstr(
		print(), "\"smt\":false,\"cpu_template\":\"T2\",\"track_dirty_pages\":false"));
	assert_int_equal(
		put_machine("{\"vcpu_count\":1,\"mem_size_mib\":4,\"cpu_template\":\"None\"}"), 0);
	assert_null(strstr(print(), "cpu_template"));
}

/* ---- boot source ---------------------------------------------------------------------------- */

static void opens_what_it_boots_when_it_is_told(void **state)
{
	struct boot_config before;
	int fds = open_fds();

	(void)state;
	assert_int_equal(put_boot(kernel, kernel, NULL), 0);
	assert_int_equal(open_fds(), fds + 2);
	assert_non_null(strstr(print(), "\"boot_args\":null}"));
	before = cfg->boot;

	assert_true(put_boot("/nonexistent", "", NULL) < 0);
	assert_string_equal(err.msg,
			    "Boot source error: The kernel file cannot be opened: No such file "
			    "or directory (os error 2)");
	assert_true(put_boot(kernel, "/nonexistent", NULL) < 0);
	assert_string_equal(err.msg,
			    "Boot source error: The initrd file cannot be opened due to invalid "
			    "path or invalid permissions. No such file or directory (os error 2)");
	assert_true(put_boot(kernel, "", "a\nb") < 0);
	assert_string_equal(err.msg,
			    "Boot source error: The kernel command line is invalid: String "
			    "contains a non-printable ASCII character.");
	assert_memory_equal(&before, &cfg->boot, sizeof before);
	assert_int_equal(open_fds(), fds + 2);

	assert_int_equal(put_boot(kernel, "", "console=ttyS0"), 0);
	assert_int_equal(open_fds(), fds + 1);
	assert_int_equal(cfg->boot.initrd_fd, -1);
	assert_non_null(strstr(print(), "\"initrd_path\":null,\"boot_args\":\"console=ttyS0\"}"));
}

/* ---- drives --------------------------------------------------------------------------------- */

static void drives_keep_their_order_and_the_root_comes_first(void **state)
{
	(void)state;
	assert_int_equal(put_drive(DRIVE("a", "false", disk_a)), 0);
	assert_int_equal(put_drive(DRIVE("b", "false", disk_a)), 0);
	assert_int_equal(put_drive(DRIVE("r", "true", disk_a)), 0);
	assert_string_equal(order(), "r a b ");
	assert_int_equal(put_drive(DRIVE("c", "false", disk_a)), 0);
	assert_int_equal(put_drive(DRIVE("a", "false", disk_b)), 0);
	assert_string_equal(order(), "r a b c ");
	assert_string_equal(cfg->drives[1].blk.path, disk_b);
	assert_int_equal(put_drive(DRIVE("b", "true", disk_a)), -EINVAL);
	assert_string_equal(err.msg, "Drive config error: A root block device already exists!");
	assert_int_equal(put_drive(DRIVE("r", "false", disk_a)), 0);
	assert_int_equal(put_drive(DRIVE("b", "true", disk_b)), 0);
	assert_string_equal(order(), "b r a c ");
}

static void a_refused_drive_leaves_no_trace(void **state)
{
	struct config *before = malloc(sizeof *before);
	int fds;

	(void)state;
	assert_int_equal(put_drive(DRIVE("r", "true", disk_a)), 0);
	memcpy(before, cfg, sizeof *before);
	fds = open_fds();
	assert_true(put_drive(DRIVE("r", "true", "/nonexistent")) < 0);
	assert_string_equal(err.msg,
			    "Drive config error: Unable to create the virtio block device: "
			    "Virtio backend error: Error manipulating the backing file: No such "
			    "file or directory (os error 2) /nonexistent");
	assert_true(put_drive(DRIVE("s", "true", disk_a)) < 0);
	assert_true(put_drive(DRIVE("a-b", "false", disk_a)) < 0);
	assert_string_equal(
		err.msg,
		"API Resource IDs can only contain alphanumeric characters and underscores.");
	assert_true(put_drive(DRIVE("", "false", disk_a)) < 0);
	assert_string_equal(err.msg, "The ID cannot be empty.");
	assert_true(put_drive("{\"drive_id\":\"x\",\"is_root_device\":false}") < 0);
	assert_non_null(strstr(err.msg, "Invalid block config."));
	assert_true(put_drive("{\"drive_id\":\"x\",\"is_root_device\":false,\"socket\":\"/s\","
			      "\"is_read_only\":false}") < 0);
	assert_non_null(strstr(err.msg, "Invalid block config."));
	assert_true(put_drive("{\"drive_id\":\"x\",\"is_root_device\":false,\"socket\":\"/s\"}") <
		    0);
	assert_non_null(strstr(err.msg, "vhost-user"));
	assert_memory_equal(before, cfg, sizeof *before);
	assert_int_equal(open_fds(), fds);
	free(before);
}

static void drives_print_every_field(void **state)
{
	char expected[512];

	(void)state;
	assert_int_equal(put_drive(DRIVE("a", "true", disk_a)), 0);
	snprintf(expected, sizeof expected,
		 "\"drives\":[{\"drive_id\":\"a\",\"partuuid\":null,\"is_root_device\":true,"
		 "\"cache_type\":\"Unsafe\",\"is_read_only\":false,\"path_on_host\":\"%s\","
		 "\"rate_limiter\":null,\"io_engine\":\"Sync\",\"socket\":null}]",
		 disk_a);
	assert_non_null(strstr(print(), expected));
	assert_int_equal(
		put_drive(
			"{\"drive_id\":\"a\",\"partuuid\":\"0eaa91a0-01\",\"is_root_device\":true,"
			"\"cache_type\":\"Writeback\",\"is_read_only\":true,\"path_on_host\":\"%"
			"s\","
			"\"io_engine\":\"Async\",\"rate_limiter\":{\"bandwidth\":{\"size\":1,"
			"\"refill_time\":2,\"one_time_burst\":3},\"ops\":{\"size\":0,\"refill_"
			"time\":5}}}",
			disk_a),
		0);
	snprintf(
		expected, sizeof expected,
		"\"partuuid\":\"0eaa91a0-01\",\"is_root_device\":true,\"cache_type\":\"Writeback\","
		"\"is_read_only\":true,\"path_on_host\":\"%s\",\"rate_limiter\":{\"bandwidth\":{"
		"\"size\":1,\"one_time_burst\":3,\"refill_time\":2},\"ops\":null},"
		"\"io_engine\":\"Async\"",
		disk_a);
	assert_non_null(strstr(print(), expected));
	assert_int_equal(
		put_drive("{\"drive_id\":\"a\",\"is_root_device\":true,\"path_on_host\":\"%s\","
			  "\"rate_limiter\":{}}",
			  disk_a),
		0);
	assert_non_null(strstr(print(), "\"rate_limiter\":null"));
}

static void there_is_room_for_so_many_devices(void **state)
{
	struct entropy_config entropy = { 0 };
	char text[256];

	(void)state;
	for (unsigned i = 0; i < CONFIG_DRIVES_MAX; i++) {
		snprintf(text, sizeof text,
			 "{\"drive_id\":\"d%u\",\"is_root_device\":false,\"path_on_host\":\"%s\"}",
			 i, disk_a);
		assert_int_equal(put_drive("%s", text), 0);
	}
	assert_int_equal(put_drive(DRIVE("more", "false", disk_a)), -EINVAL);
	assert_non_null(strstr(err.msg, "Too many devices"));
	assert_int_equal(config_put_entropy(cfg, &entropy, &err), -ENOSPC);
	assert_int_equal(put_drive(DRIVE("d31", "true", disk_a)), 0);
	assert_int_equal(cfg->n_drives, CONFIG_DRIVES_MAX);
	assert_string_equal(cfg->drives[0].blk.id, "d31");
}

/* ---- the file ------------------------------------------------------------------------------- */

static int load(const char *text)
{
	make_file(file, sizeof file, "config.json", text);
	return instance_load_config_file(inst, file, &err);
}

static void a_file_does_what_the_requests_do(void **state)
{
	char text[1024], expected[2048];

	(void)state;
	snprintf(text, sizeof text,
		 "{\n \"boot-source\": {\"kernel_image_path\": \"%s\", \"boot_args\": \"x\"},\n"
		 " \"drives\": "
		 "[{\"drive_id\":\"a\",\"is_root_device\":false,\"path_on_host\":\"%s\"},\n"
		 "  {\"drive_id\":\"r\",\"is_root_device\":true,\"path_on_host\":\"%s\"}],\n"
		 " \"machine-config\": {\"vcpu_count\": 2, \"mem_size_mib\": 64},\n"
		 " \"entropy\": {}, \"vsock\": null, \"pmem\": [], \"logger\": "
		 "null\n}\n",
		 kernel, disk_a, disk_b);
	if (load(text) < 0)
		complain("%s", err.msg);
	assert_string_equal(order(), "r a ");
	snprintf(expected, sizeof expected,
		 "\"boot-source\":{\"kernel_image_path\":\"%s\",\"initrd_path\":null,"
		 "\"boot_args\":\"x\"},\"cpu-config\":null,\"logger\":null,\"machine-config\":{"
		 "\"vcpu_count\":2,\"mem_size_mib\":64,",
		 kernel);
	assert_non_null(strstr(print(), expected));
	assert_non_null(strstr(print(), "\"entropy\":{\"rate_limiter\":null}"));
}

static void a_bad_file_is_named_with_the_field_and_the_reason(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{ "", "EOF while parsing a value at line 1 column 0" },
		{ "[]", "invalid type: expected an object" },
		{ "{}", "missing field `boot-source` at line 1 column 2" },
		{ "{\"boot-source\":{},\"drives\":[]}",
		  "boot-source: missing field `kernel_image_path` at line 1 column 17" },
		{ "{\"boot-source\":null,\"drives\":[]}",
		  "boot-source: invalid type: null, expected struct BootSourceConfig at line 1 "
		  "column 19" },
		{ "{\"drivess\":[]}", "unknown field `drivess` at line 1 column 10" },
		{ "{\"machine-config\":\n{\"vcpu_count\":\"two\",\"mem_size_mib\":1}}",
		  "machine-config: vcpu_count: invalid type: string \"two\", expected u8 at line 2 "
		  "column "
		  "19" },
		{ "{\"machine-config\":{\"vcpus\":1}}",
		  "machine-config: unknown field `vcpus`, expected one of `vcpu_count`, "
		  "`mem_size_mib`, "
		  "`smt`, `cpu_template`, `track_dirty_pages`, `shareable`, `huge_pages` at line 1 column 26" },
		{ "{\"machine-config\":{\"vcpu_count\":0,\"mem_size_mib\":1}}",
		  "machine-config: Machine config error: The number of vCPUs" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"/nonexistent\"},\"drives\":[]}",
		  "boot-source: Boot source error: The kernel file cannot be opened" },
		{ "{\"vsock\":{\"guest_cid\":3}}", "missing field `boot-source`" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"drives\":{}}",
		  "drives: invalid type: expected a sequence" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"drives\":[{\"drive_id\":1}]}",
		  "drives: element 0: drive_id: invalid type: integer `1`, expected a string" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"drives\":[],"
		  "\"vsock\":{\"guest_cid\":3}}",
		  "vsock: missing field `uds_path`" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"drives\":[],\"balloon\":7}",
		  "balloon: invalid type: integer `7`, expected" },
		{ "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"drives\":[],\"pmem\":[{}]}",
		  "pmem is not supported yet" },
		{ "{\"logger\":{\"log_path\":\"/nonexistent/x\"}}",
		  "logger: Logger error: Failed to open target file" },
		{ "{\"logger\":{\"level\":\"Loud\"}}", "logger: level: unknown variant `Loud`" },
	};
	char text[512], start[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *hole = strstr(rows[i].text, "%s");

		snprintf(text, sizeof text, "%.*s%s%s",
			 (int)(hole ? hole - rows[i].text : (ptrdiff_t)strlen(rows[i].text)),
			 rows[i].text, hole ? kernel : "", hole ? hole + 2 : "");
		if (load(text) >= 0)
			complain("accepted: %s", text);
		snprintf(start, sizeof start,
			 "Configuration for VMM from one single json failed: %s: %s", file,
			 rows[i].says);
		if (strncmp(err.msg, start, strlen(start)) != 0)
			complain("%s: \"%s\", not \"%s\"", text, err.msg, start);
		assert_null(strchr(err.msg, '\n'));
	}
}

static void only_small_regular_files_are_read(void **state)
{
	char fifo[64];

	(void)state;
	assert_true(instance_load_config_file(inst, "/nonexistent", &err) < 0);
	assert_non_null(strstr(err.msg, "/nonexistent: Unable to open or read"));
	assert_true(instance_load_config_file(inst, dir, &err) < 0);
	assert_non_null(strstr(err.msg, "not a regular file"));
	snprintf(fifo, sizeof fifo, "%s/fifo", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_true(instance_load_config_file(inst, fifo, &err) < 0);
	unlink(fifo);
	assert_true(instance_load_config_file(inst, "/dev/zero", &err) < 0);
	assert_int_equal(truncate(file, 1 << 30), 0);
	assert_true(instance_load_config_file(inst, file, &err) < 0);
	assert_non_null(strstr(err.msg, "at most 1048576 are allowed"));
}

static void an_id_has_1_to_64_letters_digits_and_dashes(void **state)
{
	char long_id[66];

	(void)state;
	memset(long_id, 'a', 65);
	long_id[65] = '\0';
	assert_int_equal(instance_id_check(long_id, &err), -EINVAL);
	assert_string_equal(
		err.msg,
		"Invalid instance ID: Invalid len (65);  the length must be between 1 and 64");
	assert_int_equal(instance_id_check(long_id + 1, &err), 0);
	assert_int_equal(instance_id_check("", &err), -EINVAL);
	assert_int_equal(instance_id_check("a_b", &err), -EINVAL);
	assert_int_equal(instance_id_check("A-9", &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(has_one_cpu_and_128_mib_at_first),
		TEST(checks_processors_and_memory),
		TEST(a_put_resets_all_but_the_template),
		TEST(opens_what_it_boots_when_it_is_told),
		TEST(drives_keep_their_order_and_the_root_comes_first),
		TEST(a_refused_drive_leaves_no_trace),
		TEST(drives_print_every_field),
		TEST(there_is_room_for_so_many_devices),
		TEST(a_file_does_what_the_requests_do),
		TEST(a_bad_file_is_named_with_the_field_and_the_reason),
		TEST(only_small_regular_files_are_read),
		TEST(an_id_has_1_to_64_letters_digits_and_dashes),
	};
	struct log_config quiet = { .level = LOG_OFF };
	int failed;

	if (!mkdtemp(dir) || log_configure(&quiet, &err) < 0)
		return 1;
	make_file(disk_a, sizeof disk_a, "a.img", "a disk");
	make_file(disk_b, sizeof disk_b, "b.img", "another");
	make_file(kernel, sizeof kernel, "kernel", "a kernel");
	failed = cmocka_run_group_tests_name("config", tests, NULL, NULL);
	unlink(disk_a);
	unlink(disk_b);
	unlink(kernel);
	unlink(file);
	rmdir(dir);
	return failed;
}
