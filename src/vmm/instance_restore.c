/*
 * instance_restore: the configuration of a machine that comes from a snapshot.
 *
 * It is the JSON that GET /vm/config gave when the snapshot was made, and hostile: each section goes
 * through the same table and the same rules as a client's request. Only the boot source is not
 * opened, since nothing is booted. What an override names takes the place of what was saved before
 * the rules see it.
 */
#include "instance.h"

#include "json.h"
#include "schema.h"

#include <stdlib.h>

/* Mostly room for tokens and paths. */
struct restore {
	struct instance *inst;
	const struct snapshot_load_request *req;
	struct json doc;
	union {
		struct machine_config machine;
		struct boot_config boot;
		struct drive_config drive;
		struct net_request net;
		struct vsock_request vsock;
		struct balloon_request balloon;
		struct entropy_config entropy;
	} body;
};

static int put_machine(struct restore *r, struct err *err)
{
	if (r->req->huge_pages != MEM_PAGES_ANY) {
		r->body.machine.huge_pages = (enum mem_pages)r->req->huge_pages;
		r->body.machine.pages_given = true;
	}
	return config_put_machine(&r->inst->config, &r->body.machine, err);
}

static int put_boot(struct restore *r, struct err *err)
{
	struct boot_config *boot = &r->inst->config.boot;

	(void)err;
	*boot = r->body.boot;
	boot->kernel_fd = boot->initrd_fd = -1;
	return 0;
}

static int put_drive(struct restore *r, struct err *err)
{
	struct blk_config *blk = &r->body.drive.blk;

	for (unsigned i = 0; i < r->req->n_drives; i++)
		if (strcmp(r->req->drive[i].id, blk->id) == 0)
			memcpy(blk->path, r->req->drive[i].path, sizeof blk->path);
	return config_put_drive(&r->inst->config, &r->body.drive, err);
}

static int put_net(struct restore *r, struct err *err)
{
	struct net_request *net = &r->body.net;

	for (unsigned i = 0; i < r->req->n_nets; i++) {
		const struct net_override *o = &r->req->net[i];

		if (strcmp(o->id, net->net.id) != 0)
			continue;
		memcpy(net->net.host_dev, o->host_dev, sizeof net->net.host_dev);
		if (o->mac_given)
			memcpy(net->mac, o->mac, sizeof net->mac);
		net->net.mac_given |= o->mac_given;
	}
	return config_put_net(&r->inst->config, net, err);
}

static int put_vsock(struct restore *r, struct err *err)
{
	if (r->req->vsock.given)
		memcpy(r->body.vsock.vsock.uds_path, r->req->vsock.uds_path,
		       sizeof r->body.vsock.vsock.uds_path);
	return config_put_vsock(&r->inst->config, &r->body.vsock, err);
}

static int put_balloon(struct restore *r, struct err *err)
{
	return config_put_balloon(&r->inst->config, &r->body.balloon, err);
}

static int put_entropy(struct restore *r, struct err *err)
{
	return config_put_entropy(&r->inst->config, &r->body.entropy, err);
}

static const struct section {
	const char *key;
	const struct json_object *body;
	int (*put)(struct restore *r, struct err *err);
	bool list;
} sections[] = {
	{ .key = "machine-config", .body = &schema_machine, .put = put_machine },
	{ .key = "boot-source", .body = &schema_boot, .put = put_boot },
	{ .key = "drives", .body = &schema_drive, .put = put_drive, .list = true },
	{ .key = "network-interfaces", .body = &schema_net, .put = put_net, .list = true },
	{ .key = "vsock", .body = &schema_vsock, .put = put_vsock },
	{ .key = "balloon", .body = &schema_balloon, .put = put_balloon },
	{ .key = "entropy", .body = &schema_entropy, .put = put_entropy },
};

static int find_value(const struct json *doc, const char *name)
{
	int at = 0, key, value;

	while ((value = json_each(doc, JSON_ROOT, &at, &key)) >= 0)
		if (json_is(doc, key, name))
			return value;
	return -1;
}

static int put_one(struct restore *r, const struct section *s, int value, struct err *err)
{
	int ret;

	memset(&r->body, 0, sizeof r->body);
	ret = json_decode(&r->doc, value, s->body, &r->body, err);
	return ret < 0 ? fail_prefix(err, ret, "record config: %s: ", s->key) : s->put(r, err);
}

static int put_section(struct restore *r, const struct section *s, struct err *err)
{
	int value = find_value(&r->doc, s->key), at = 0, key, element, ret = 0;

	if (value < 0)
		return fail(err, -EINVAL, "record config: %s is missing", s->key);
	if (json_kind(&r->doc, value) == JSON_IS_NULL)
		return 0;
	if (!s->list)
		return put_one(r, s, value, err);
	if (json_kind(&r->doc, value) != JSON_IS_ARRAY)
		return fail(err, -EINVAL, "record config: %s is no list", s->key);
	while (!ret && (element = json_each(&r->doc, value, &at, &key)) >= 0)
		ret = put_one(r, s, element, err);
	return ret;
}

/* An override for what is not there is a mistake that would otherwise be found much later. */
static int check_overrides(const struct restore *r, struct err *err)
{
	struct config *cfg = &r->inst->config;

	for (unsigned i = 0; i < r->req->n_nets; i++)
		if (!config_find_net(cfg, r->req->net[i].id))
			return fail(err, -ENOENT, "Unknown Network Device. (%s)", r->req->net[i].id);
	for (unsigned i = 0; i < r->req->n_drives; i++)
		if (!config_find_drive(cfg, r->req->drive[i].id))
			return fail(err, -ENOENT, "drive_overrides: there is no drive %s",
				    r->req->drive[i].id);
	if (r->req->vsock.given && !cfg->vsock.present)
		return fail(err, -ENOENT, "vsock_override: there is no vsock device");
	return 0;
}

int instance_restore_config(struct instance *inst, const char *text,
			    const struct snapshot_load_request *req, struct err *err)
{
	struct restore *r = calloc(1, sizeof *r);
	int ret;

	if (!r)
		return fail(err, -ENOMEM, "no memory for the configuration");
	r->inst = inst;
	r->req = req;
	ret = json_parse(&r->doc, text, strlen(text), err);
	if (!ret && json_kind(&r->doc, JSON_ROOT) != JSON_IS_OBJECT)
		ret = fail(err, -EINVAL, "it is no object");
	if (ret < 0)
		fail_prefix(err, ret, "record config: ");
	for (unsigned i = 0; i < ARRAY_SIZE(sections) && !ret; i++)
		ret = put_section(r, &sections[i], err);
	if (!ret)
		ret = check_overrides(r, err);
	free(r);
	return ret;
}
