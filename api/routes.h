/*
 * routes: what each method and path means. One table; the rest is how to read it.
 *
 * Loop thread. The answer's body is in a static buffer, good until the next call.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include "../src/vmm/instance.h"
#include "../src/vmm/json.h"
#include "http.h"

/* Longest body of an answer, bytes. */
#define ROUTES_BODY_MAX (256u << 10)

/* Carries the request out and words the answer; logs both. */
void routes_handle(struct instance *inst, const struct http_request *req, struct http_reply *reply);

/* One row, for those who want to compare the table with something else (tests, documentation). */
struct routes_row {
	enum http_verb verb;
	const char *path;		/* "/drives/{id}" */
	const struct json_object *body; /* NULL: none is read */
	bool supported;
};

/* False after the last. */
bool routes_row(unsigned i, struct routes_row *row);

#endif
