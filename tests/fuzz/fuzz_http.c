/*
 * fuzz_http: a stream of bytes must mean the same however it is cut. The first two bytes choose the
 * cut; the rest is parsed whole and in pieces, and both must give the same requests, the same end
 * and the same error. What is said to be a request must keep what http.h promises about it.
 */
#include "api/http.h"

#include <stdio.h>
#include <stdlib.h>

#define PAYLOAD	 600
#define check(x) ((x) ? (void)0 : abort())

struct outcome {
	u64 hash;
	unsigned requests;
	enum http_state state;
	char error[sizeof(struct err)];
};

static void mix(struct outcome *o, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		o->hash = (o->hash ^ ((const u8 *)bytes)[i]) * 0x100000001b3u;
}

static void take(struct outcome *o, const struct http_request *req)
{
	u8 verb = (u8)req->verb | (u8)(req->close << 4);

	check(req->verb < HTTP_VERBS);
	check(req->path_len > 0 && req->path_len <= HTTP_LINE_MAX && req->path[0] == '/');
	for (size_t i = 0; i < req->path_len; i++)
		check(req->path[i] > ' ' && req->path[i] <= '~');
	check(req->body_len <= PAYLOAD);
	mix(o, &verb, 1);
	mix(o, req->path, req->path_len);
	mix(o, "", 1);
	mix(o, req->body, req->body_len);
	o->requests++;
}

static enum http_state drain(struct http_parser *p, struct outcome *o)
{
	char line[128];
	enum http_state s;

	while ((s = http_next(p)) == HTTP_READY || s == HTTP_CONTINUE) {
		if (s == HTTP_CONTINUE) {
			check(http_put_continue(line, sizeof line, p) > 0);
			mix(o, "100", 3);
			continue;
		}
		take(o, &p->req);
		http_done(p);
	}
	return s;
}

static void run(struct outcome *o, const u8 *data, size_t size, size_t first, size_t step)
{
	static char reply[16384];
	char *buf = malloc(http_buffer_size(PAYLOAD)); /* exact: the sanitizer sees every overrun */
	struct http_parser p;

	*o = (struct outcome){ .hash = 0xcbf29ce484222325u };
	http_init(&p, buf, PAYLOAD);
	for (size_t n = first; size && p.state != HTTP_BAD; n = step) {
		size_t room;
		char *at = http_room(&p, &room);

		check(room > 0);
		n = MIN(MIN(n, room), size);
		memcpy(at, data, n);
		http_fed(&p, n);
		data += n;
		size -= n;
		drain(&p, o);
	}
	o->state = drain(&p, o);
	if (o->state == HTTP_BAD) {
		check(p.error.msg[0]);
		strcpy(o->error, p.error.msg);
		check(http_put_error(reply, sizeof reply, &p.error) > 0);
	}
	free(buf);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct outcome whole, cut;

	if (size < 2)
		return 0;
	run(&whole, data + 2, size - 2, size, size);
	run(&cut, data + 2, size - 2, 1 + data[0], 1 + data[1] % 64);
	check(whole.hash == cut.hash && whole.requests == cut.requests && whole.state == cut.state);
	check(strcmp(whole.error, cut.error) == 0);
	return 0;
}
