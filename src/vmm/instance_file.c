/*
 * instance_file: the configuration file (contract 1.6): the bodies of the PUT requests under one
 * roof, applied by the very functions the API uses.
 *
 * Stricter than Firecracker in one point: a top-level key that nobody knows is an error, so that a
 * misspelt device does not vanish without a word.
 */
#include "instance.h"

#include "json.h"
#include "log.h"
#include "schema.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILE_SIZE_MAX MIB(1)

/* One section on its way in: any request's struct fits. */
union body {
	struct machine_config machine;
	struct boot_config boot;
	struct drive_config drive;
	struct net_request net;
	struct vsock_request vsock;
	struct balloon_request balloon;
	struct entropy_config entropy;
	struct log_config logger;
};

struct section {
	const char *key;
	const struct json_object *body; /* NULL: known, but not supported yet */
	int (*apply)(struct instance *inst, const union body *body, struct err *err);
	void (*prepare)(const struct instance *inst, union body *body);
	bool required, list;
};

static void prepare_machine(const struct instance *inst, union body *body)
{
	config_machine_defaults(&inst->config, &body->machine);
}

static void prepare_logger(const struct instance *inst, union body *body)
{
	(void)inst;
	log_settings(&body->logger);
	body->logger.level = LOG_INFO;
}

static int apply_machine(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_machine(&inst->config, &body->machine, err);
}

static int apply_boot(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_boot(&inst->config, &body->boot, err);
}

static int apply_drive(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_drive(&inst->config, &body->drive, err);
}

static int apply_net(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_net(&inst->config, &body->net, err);
}

static int apply_vsock(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_vsock(&inst->config, &body->vsock, err);
}

static int apply_balloon(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_balloon(&inst->config, &body->balloon, err);
}

static int apply_entropy(struct instance *inst, const union body *body, struct err *err)
{
	return config_put_entropy(&inst->config, &body->entropy, err);
}

static int apply_logger(struct instance *inst, const union body *body, struct err *err)
{
	int r = log_configure(&body->logger, err);

	(void)inst;
	return r < 0 ? fail_prefix(err, r, "Logger error: ") : 0;
}

/* In the order in which they are applied: the logger first, to hear of the rest. */
static const struct section sections[] = {
	{ .key = "logger", &schema_logger, apply_logger, prepare_logger },
	{ .key = "machine-config", &schema_machine, apply_machine, prepare_machine },
	{ .key = "boot-source", &schema_boot, apply_boot, .required = true },
	{ .key = "drives", &schema_drive, apply_drive, .required = true, .list = true },
	{ .key = "network-interfaces", &schema_net, apply_net, .list = true },
	{ .key = "vsock", &schema_vsock, apply_vsock },
	{ .key = "balloon", &schema_balloon, apply_balloon },
	{ .key = "entropy", &schema_entropy, apply_entropy },
	{ .key = "cpu-config" },
	{ .key = "pmem" },
	{ .key = "memory-hotplug" },
	{ .key = "metrics" },
	{ .key = "mmds-config" },
};

/* ---- the file ----------------------------------------------------------------------------- */

/* What is kept while a file is read; freed before the machine is made. */
struct loader {
	struct instance *inst;
	struct json doc;
	union body body;
	size_t len;
	char text[];
};

static int read_all(int fd, char *text, size_t len)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = read(fd, text + at, len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* it became shorter under our hands */
		at += (size_t)n;
	}
	return 0;
}

static int read_file(struct loader **out, const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct loader *loader;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, -errno,
			    "Unable to open or read from the configuration file: " OS_ERR,
			    OS_ERR_ARGS(errno));
	if (!S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "it is not a regular file");
	if (st.st_size > (off_t)FILE_SIZE_MAX)
		return fail(err, -EFBIG, "it has %lld bytes, at most %llu are allowed",
			    (long long)st.st_size, (unsigned long long)FILE_SIZE_MAX);
	loader = calloc(1, sizeof *loader + (size_t)st.st_size + 1);
	if (!loader)
		return fail(err, -ENOMEM, "no memory for %lld bytes", (long long)st.st_size);
	loader->len = (size_t)st.st_size;
	r = read_all(fd, loader->text, loader->len);
	if (r < 0) {
		free(loader);
		return fail(err, r, "cannot be read: " OS_ERR, OS_ERR_ARGS(-r));
	}
	*out = loader;
	return 0;
}

/* ---- sections ----------------------------------------------------------------------------- */

static bool is_empty(const struct json *doc, int value)
{
	int at = 0, key;

	switch (json_kind(doc, value)) {
	case JSON_IS_NULL:
		return true;
	case JSON_IS_OBJECT:
	case JSON_IS_ARRAY:
		return json_each(doc, value, &at, &key) < 0;
	default:
		return false;
	}
}

static int apply_one(struct loader *l, const struct section *s, int value, struct err *err)
{
	int r;

	memset(&l->body, 0, sizeof l->body);
	if (s->prepare)
		s->prepare(l->inst, &l->body);
	r = json_decode(&l->doc, value, s->body, &l->body, err);
	if (r < 0 && l->doc.field)
		return fail_prefix(err, r, "%s: ", l->doc.field);
	return r < 0 ? r : s->apply(l->inst, &l->body, err);
}

static int apply_list(struct loader *l, const struct section *s, int list, struct err *err)
{
	int at = 0, key, value, r;

	if (json_kind(&l->doc, list) != JSON_IS_ARRAY)
		return fail(err, -EINVAL, "invalid type: expected a sequence");
	for (unsigned i = 0; (value = json_each(&l->doc, list, &at, &key)) >= 0; i++) {
		r = apply_one(l, s, value, err);
		if (r < 0)
			return fail_prefix(err, r, "element %u: ", i);
	}
	return 0;
}

static int apply_section(struct loader *l, const struct section *s, int value, struct err *err)
{
	int r;

	if (!s->body && !is_empty(&l->doc, value))
		return fail(err, -ENOTSUP, "%s is not supported yet", s->key);
	if (!s->body || (!s->required && json_kind(&l->doc, value) == JSON_IS_NULL))
		return 0;
	r = s->list ? apply_list(l, s, value, err) : apply_one(l, s, value, err);
	return r < 0 ? fail_prefix(err, r, "%s: ", s->key) : 0;
}

static int find_value(const struct json *doc, const char *name)
{
	int at = 0, key, value;

	while ((value = json_each(doc, JSON_ROOT, &at, &key)) >= 0)
		if (json_is(doc, key, name))
			return value;
	return -1;
}

static int check_key(const struct json *doc, int key, struct err *err)
{
	const jsmntok_t *t = &doc->tok[key];

	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (json_is(doc, key, sections[i].key))
			return 0;
	return json_fail(doc->text, (size_t)t->end + 1, err, "unknown field `%.*s`",
			 MIN(t->end - t->start, 128), doc->text + t->start);
}

static int apply_all(struct loader *l, struct err *err)
{
	const struct json *doc = &l->doc;
	int at = 0, key, value;

	if (json_parse(&l->doc, l->text, l->len, err) < 0)
		return -EINVAL;
	if (json_kind(doc, JSON_ROOT) != JSON_IS_OBJECT)
		return fail(err, -EINVAL, "invalid type: expected an object");
	while (json_each(doc, JSON_ROOT, &at, &key) >= 0)
		if (check_key(doc, key, err) < 0)
			return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		value = find_value(doc, sections[i].key);
		if (value < 0 && sections[i].required)
			return json_fail(doc->text, (size_t)doc->tok[JSON_ROOT].end, err,
					 "missing field `%s`", sections[i].key);
		if (value >= 0 && apply_section(l, &sections[i], value, err) < 0)
			return -EINVAL;
	}
	return 0;
}

int instance_load_config_file(struct instance *inst, const char *path, struct err *err)
{
	struct loader *loader = NULL;
	int r = read_file(&loader, path, err);

	if (loader) {
		loader->inst = inst;
		r = apply_all(loader, err);
	}
	free(loader);
	if (r < 0)
		return fail_prefix(
			err, r,
			"Configuration for VMM from one single json failed: %.512s: ", path);
	return 0;
}
