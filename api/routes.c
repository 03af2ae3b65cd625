/*
 * routes: see routes.h.
 *
 * Every request goes through the same gates in the same order, so that clients see the same error
 * for the same mistake wherever they make it: is a body due, does the path exist, is its id well
 * formed, is the body what the table says, is this the time for it. Only then a handler runs, and
 * it gets a struct, never JSON.
 */
#include "routes.h"

#include "../src/vmm/log.h"
#include "handlers.h"

#include <stdio.h>
#include <sys/mman.h>

#define ID_PLACE "{id}"

enum phase {
	ANY,
	BEFORE,	    /* only before the machine is started */
	AFTER,	    /* only after */
	BEFORE_PCI, /* after it only with a PCI bus, which there is not */
	AFTER_PCI,
};

struct route {
	const char *path;
	int (*handle)(struct call *call); /* NULL: known, but not supported yet */
	const struct json_object *body;
	void (*prepare)(struct call *call); /* what the body is decoded over; NULL: zeros */
	enum http_verb verb;
	enum phase phase;
	bool boot_specific; /* trying it forbids loading a snapshot */
	bool body_optional;
};

/* ---- the table ---------------------------------------------------------------------------- */

#define GET    HTTP_VERB_GET
#define PUT    HTTP_VERB_PUT
#define PATCH  HTTP_VERB_PATCH
#define DELETE HTTP_VERB_DELETE

#define ROUTE(verb_, path_, phase_, handle_, ...)                                                  \
	{                                                                                          \
		.verb = (verb_), .path = (path_), .phase = (phase_), .handle = (handle_),          \
		__VA_ARGS__                                                                        \
	}
#define SOON(verb_, path_, ...)                                                                    \
	{                                                                                          \
		.verb = (verb_), .path = (path_), __VA_ARGS__                                      \
	}

/* clang-format off */
static const struct route routes[] = {
	ROUTE(GET,    "/",                       ANY,        handlers_get_info),
	ROUTE(GET,    "/version",                ANY,        handlers_get_version),
	ROUTE(GET,    "/vm/config",              ANY,        handlers_get_config),
	ROUTE(PATCH,  "/vm",                     AFTER,      handlers_patch_vm, .body = &schema_vm),
	ROUTE(PUT,    "/actions",                ANY,        handlers_put_action,
	      .body = &schema_actions),
	ROUTE(GET,    "/machine-config",         ANY,        handlers_get_machine),
	ROUTE(PUT,    "/machine-config",         BEFORE,     handlers_put_machine,
	      .body = &schema_machine, .prepare = handlers_prepare_machine_put, .boot_specific = true),
	ROUTE(PATCH,  "/machine-config",         BEFORE,     handlers_patch_machine,
	      .body = &schema_machine_patch, .prepare = handlers_prepare_machine_patch,
	      .boot_specific = true),
	ROUTE(PUT,    "/boot-source",            BEFORE,     handlers_put_boot,
	      .body = &schema_boot, .boot_specific = true),
	ROUTE(PUT,    "/drives/" ID_PLACE,       BEFORE_PCI, handlers_put_drive,
	      .body = &schema_drive, .boot_specific = true),
	ROUTE(PATCH,  "/drives/" ID_PLACE,       AFTER,      handlers_patch_drive,
	      .body = &schema_drive_patch),
	ROUTE(DELETE, "/drives/" ID_PLACE,       AFTER_PCI,  handlers_needs_pci),
	ROUTE(PUT,    "/network-interfaces/" ID_PLACE, BEFORE_PCI, handlers_put_net,
	      .body = &schema_net, .boot_specific = true),
	ROUTE(PATCH,  "/network-interfaces/" ID_PLACE, AFTER, handlers_patch_net,
	      .body = &schema_net_patch),
	ROUTE(DELETE, "/network-interfaces/" ID_PLACE, AFTER_PCI, handlers_needs_pci),
	ROUTE(PUT,    "/vsock",                  BEFORE,     handlers_put_vsock,
	      .body = &schema_vsock, .boot_specific = true),
	ROUTE(GET,    "/balloon",                ANY,        handlers_get_balloon),
	ROUTE(PUT,    "/balloon",                BEFORE,     handlers_put_balloon,
	      .body = &schema_balloon, .boot_specific = true),
	ROUTE(PATCH,  "/balloon",                AFTER,      handlers_patch_balloon,
	      .body = &schema_balloon_size),
	ROUTE(GET,    "/balloon/statistics",     AFTER,      handlers_get_balloon_stats),
	ROUTE(PATCH,  "/balloon/statistics",     AFTER,      handlers_patch_balloon_stats,
	      .body = &schema_balloon_interval),
	ROUTE(PATCH,  "/balloon/hinting/start",  AFTER,      handlers_hint_start,
	      .body = &schema_balloon_hint, .prepare = handlers_prepare_hint, .body_optional = true),
	ROUTE(GET,    "/balloon/hinting/status", AFTER,      handlers_hint_status),
	ROUTE(PATCH,  "/balloon/hinting/stop",   AFTER,      handlers_hint_stop,
	      .body = &schema_balloon_hint, .body_optional = true),
	ROUTE(PUT,    "/entropy",                BEFORE,     handlers_put_entropy,
	      .body = &schema_entropy, .boot_specific = true),
	ROUTE(PUT,    "/serial",                 BEFORE,     handlers_put_serial,
	      .body = &schema_serial),
	ROUTE(PUT,    "/logger",                 BEFORE,     handlers_put_logger,
	      .body = &schema_logger, .prepare = handlers_prepare_logger),
	ROUTE(PUT,    "/snapshot/create",        AFTER,      handlers_create_snapshot,
	      .body = &schema_snapshot_create),
	ROUTE(PUT,    "/snapshot/share",         AFTER,      handlers_share_snapshot,
	      .body = &schema_snapshot_share),
	ROUTE(GET,    "/snapshot/status",        AFTER,      handlers_get_live),
	ROUTE(PUT,    "/snapshot/load",          BEFORE,     handlers_load_snapshot,
	      .body = &schema_snapshot_load),

	/* Known from Firecracker, not there yet. */
	SOON(PUT,    "/cpu-config"),
	SOON(PUT,    "/metrics"),
	SOON(GET,    "/mmds"),
	SOON(PUT,    "/mmds"),
	SOON(PATCH,  "/mmds"),
	SOON(PUT,    "/mmds/config"),
	SOON(PUT,    "/pmem/" ID_PLACE),
	SOON(PATCH,  "/pmem/" ID_PLACE),
	SOON(DELETE, "/pmem/" ID_PLACE),
	SOON(GET,    "/hotplug/memory"),
	SOON(PUT,    "/hotplug/memory"),
	SOON(PATCH,  "/hotplug/memory"),
};
/* clang-format on */

bool routes_row(unsigned i, struct routes_row *row)
{
	if (i >= ARRAY_SIZE(routes))
		return false;
	*row = (struct routes_row){ .verb = routes[i].verb,
				    .path = routes[i].path,
				    .body = routes[i].body,
				    .supported = routes[i].handle != NULL };
	return true;
}

/* ---- paths -------------------------------------------------------------------------------- */

/* One piece of a path, without its slash. */
struct piece {
	const char *at;
	size_t len;
};

/* Cuts the next piece off; an empty one at the end of the path. */
static struct piece next_piece(const char **path, const char *end)
{
	struct piece piece;

	if (*path < end && **path == '/')
		++*path;
	piece.at = *path;
	while (*path < end && **path != '/')
		++*path;
	piece.len = (size_t)(*path - piece.at);
	return piece;
}

static bool same(struct piece a, struct piece b)
{
	return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/*
 * One trailing slash is ignored. A missing id matches too, as an empty one: the client is then told
 * about the id. `id` is set if the pattern has one.
 */
static bool match(const char *pattern, const struct http_request *req, struct piece *id)
{
	static const struct piece place = { ID_PLACE, sizeof ID_PLACE - 1 };
	const char *pattern_end = pattern + strlen(pattern);
	const char *path = req->path, *end = path + req->path_len;

	if (end - path > 1 && end[-1] == '/')
		end--;
	while (pattern < pattern_end) {
		struct piece want = next_piece(&pattern, pattern_end);
		struct piece got = next_piece(&path, end);

		if (same(want, place))
			*id = got;
		else if (!same(want, got))
			return false;
	}
	return path == end;
}

static const struct route *find(const struct http_request *req, struct piece *id)
{
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
		if (routes[i].verb == req->verb && match(routes[i].path, req, id))
			return &routes[i];
	return NULL;
}

/* ---- gates -------------------------------------------------------------------------------- */

static const char *const verb_upper[HTTP_VERBS] = { "GET", "PUT", "PATCH", "DELETE" };
static const char *const verb_title[HTTP_VERBS] = { "Get", "Put", "Patch", "Delete" };

static int check_body_due(const struct http_request *req, const struct route *route,
			  struct err *err)
{
	switch (req->verb) {
	case GET:
		if (req->body_len)
			return fail(err, -EINVAL, "GET request cannot have a body.");
		break;
	case PUT:
		if (!req->body_len)
			return fail(err, -EINVAL, "Empty PUT request.");
		break;
	case PATCH:
		if (!req->body_len && !(route && route->body_optional))
			return fail(err, -EINVAL, "Empty PATCH request.");
		break;
	default:
		if (req->body_len)
			return fail(err, -EINVAL, "Empty Delete request.");
	}
	return 0;
}

/* Names the first piece of the path only, as clients know it. */
static int unknown_path(const struct http_request *req, struct err *err)
{
	const char *path = req->path, *end = path + req->path_len;
	struct piece first = next_piece(&path, end);
	static const struct piece snapshot = { "snapshot", 8 }, balloon = { "balloon", 7 };

	if (req->verb == PUT && same(first, snapshot) && end - path <= 1)
		return fail(err, -EINVAL, "Missing snapshot operation type.");
	if (req->verb != DELETE && req->verb != PUT && same(first, balloon) && end - path > 1)
		return fail(err, -EINVAL, "Unrecognized GET request path `%.*s`.",
			    (int)(end - path) - 1, path + 1);
	if (req->verb == PUT && same(first, snapshot))
		first = (struct piece){ req->path, req->path_len };
	return fail(err, -EINVAL, "Invalid request method and/or path: %s %.*s.",
		    verb_upper[req->verb], (int)first.len, first.at);
}

static int unsupported(const struct route *route, struct err *err)
{
	return fail(err, -ENOTSUP,
		    "The requested operation is not supported: %s %s is not implemented yet.",
		    verb_upper[route->verb], route->path);
}

static int take_id(struct call *c, struct piece id)
{
	if (id.len > DEVICE_ID_MAX)
		return fail(c->err, -EINVAL, "The ID is too long: at most %d characters.",
			    DEVICE_ID_MAX);
	memcpy(c->id, id.at, id.len);
	c->id[id.len] = '\0';
	return config_check_id(c->id, c->err);
}

static int take_body(struct call *c, const struct route *route)
{
	int r;

	if (route->prepare)
		route->prepare(c);
	if (!c->req->body_len) /* it is optional, or the request would not be here */
		return 0;
	r = json_parse(c->doc, c->req->body, c->req->body_len, c->err);
	if (!r)
		r = json_decode(c->doc, JSON_ROOT, route->body, c->body, c->err);
	if (r < 0) {
		fail_prefix(c->err, r,
			    "An error occurred when deserializing the json body of a request: ");
		strncat(c->err->msg, ".", sizeof c->err->msg - strlen(c->err->msg) - 1);
		return r;
	}
	c->given = r;
	return 0;
}

/* The bodies that repeat the path's id. */
static int check_same_id(const struct call *c, const struct route *route)
{
	const struct {
		const struct json_object *body;
		const char *id;
	} bodies[] = {
		{ &schema_drive, c->body->drive.blk.id },
		{ &schema_drive_patch, c->body->drive_patch.id },
		{ &schema_net, c->body->net.net.id },
		{ &schema_net_patch, c->body->net_patch.id },
	};
	const char *id = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
		if (route->body == bodies[i].body)
			id = bodies[i].id;
	if (!id || strcmp(id, c->id) == 0)
		return 0;
	if (route->body == &schema_net || route->body == &schema_net_patch)
		return fail(c->err, -EINVAL,
			    "The id from the path [%s] does not match the id from the body [%s]!",
			    c->id, id);
	return fail(c->err, -EINVAL, "The id from the path does not match the id from the body!");
}

/* Clients learn from a header that a field they used will go. */
static void note_deprecated(struct call *c, const struct route *route)
{
	if (route->body == &schema_vsock && c->body->vsock.id_given) {
		c->deprecated = true;
		log_warn("%s %s: vsock_id field is deprecated.", verb_upper[route->verb],
			 route->path);
	}
	if (route->body == &schema_snapshot_load &&
	    (c->body->snapshot_load.mem_path_given ||
	     c->body->snapshot_load.enable_diff_snapshots)) {
		c->deprecated = true;
		log_warn("%s %s: mem_file_path and enable_diff_snapshots fields are deprecated.",
			 verb_upper[route->verb], route->path);
	}
	if (!strcmp(route->path, "/machine-config") && route->body &&
	    c->body->machine.template_given) {
		c->deprecated = true;
		log_warn("%s %s: cpu_template field is deprecated.", verb_upper[route->verb],
			 route->path);
	}
}

static int check_phase(const struct call *c, enum phase phase)
{
	bool started = c->inst->vm != NULL;

	if (started && phase == BEFORE)
		return fail(c->err, -EPERM,
			    "The requested operation is not supported after starting the microVM.");
	if (!started && (phase == AFTER || phase == AFTER_PCI))
		return fail(c->err, -EPERM,
			    "The requested operation is not supported before starting the "
			    "microVM.");
	if (started && (phase == BEFORE_PCI || phase == AFTER_PCI))
		return fail(c->err, -EPERM, "PCI is not enabled");
	return 0;
}

static int run(struct call *c)
{
	struct piece id = { NULL, 0 };
	const struct route *route = find(c->req, &id);
	int r = check_body_due(c->req, route, c->err);

	if (r < 0)
		return r;
	if (!route)
		return unknown_path(c->req, c->err);
	if (id.at)
		r = take_id(c, id);
	if (!r && !route->handle)
		return unsupported(route, c->err);
	if (!r && route->body) {
		r = take_body(c, route);
		if (!r)
			r = check_same_id(c, route);
		if (!r)
			note_deprecated(c, route);
	}
	if (!r)
		r = check_phase(c, route->phase);
	if (r < 0)
		return r;
	c->inst->config.boot_specific |= route->boot_specific;
	instance_expect_start(c->inst);
	return route->handle(c);
}

/* ---- answers and log ---------------------------------------------------------------------- */

/* A body in quotes, as far as it goes; the log clips long lines anyway. */
static void quote(const char *body, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 3 < size; i++) {
		char c = body[i];

		if (c == '"' || c == '\\' || c == '\n')
			out[n++] = '\\';
		out[n++] = c == '\n' ? 'n' : c ? c : '?';
	}
	out[n] = '\0';
}

static void log_request(const struct http_request *req)
{
	char body[4096];

	if (!req->body_len) {
		log_info("The API server received a %s request on \"%.*s\".", verb_title[req->verb],
			 (int)req->path_len, req->path);
		return;
	}
	quote(req->body, req->body_len, body, sizeof body);
	log_info("The API server received a %s request on \"%.*s\" with body \"%s\".",
		 verb_title[req->verb], (int)req->path_len, req->path, body);
}

static void put_fault(struct json_out *out, const struct err *err)
{
	out->len = 0;
	out->overflow = false;
	json_put(out, "{\"fault_message\":");
	json_put_string(out, err->msg);
	json_put(out, "}");
}

/*
 * What a request is decoded into has room for the largest, and most of it is never touched: zero pages
 * that come with the request and go with it, so that an idle monitor has none of them.
 */
struct decoded {
	union body body;
	struct json doc;
};

static int run_decoded(struct call *c)
{
	struct decoded *d = mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);
	int r;

	if (d == MAP_FAILED)
		return fail(c->err, -errno, "no memory for the request: " OS_ERR, OS_ERR_ARGS(errno));
	c->body = &d->body;
	c->doc = &d->doc;
	r = run(c);
	munmap(d, sizeof *d);
	return r;
}

void routes_handle(struct instance *inst, const struct http_request *req, struct http_reply *reply)
{
	static char text[ROUTES_BODY_MAX + 1];
	struct json_out out = { .buf = text, .size = sizeof text };
	struct err err;
	struct call c = { .inst = inst, .req = req, .out = &out, .err = &err };
	u64 begin = loop_now_ns();
	int r;

	log_request(req);
	r = run_decoded(&c);
	if (!r && out.overflow)
		r = fail(&err, -EMSGSIZE, "The answer is longer than %u bytes.", ROUTES_BODY_MAX);
	if (r < 0) {
		put_fault(&out, &err);
		log_error("Received Error. Status code: 400 Bad Request. Message: %s", err.msg);
	} else {
		log_info("The request was executed successfully. Status code: %s.",
			 out.len ? "200 OK" : "204 No Content");
	}
	*reply = (struct http_reply){ .status = r < 0	  ? 400
						: out.len ? 200
							  : 204,
				      .body = out.len ? text : NULL,
				      .body_len = out.len,
				      .deprecated = c.deprecated };
	log_debug("Total previous API call duration: %llu us.",
		  (unsigned long long)((loop_now_ns() - begin) / 1000));
}
