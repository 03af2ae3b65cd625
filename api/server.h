/*
 * server: the API's Unix socket, its connections and their deadlines.
 *
 * Everything on the loop thread, nothing blocks, nothing is allocated after server_create(): each
 * of at most SERVER_CONNECTIONS_MAX clients has two fixed buffers, of which only the pages that
 * were used exist. Requests are carried out one after the other, those of one connection are
 * answered in order. A client that does not read its answers is not read from either, and is
 * dropped in the end.
 */
#ifndef SERVER_H
#define SERVER_H

#include "../src/vmm/instance.h"

#define SERVER_CONNECTIONS_MAX 10

/* Deadlines, in seconds: from the first byte of a head to its end; for the body; for answers. */
#define SERVER_HEAD_S  5
#define SERVER_BODY_S  10
#define SERVER_WRITE_S 10

struct server;

/*
 * Listens at `path`, which must not exist; the name appears only when connections are accepted. The
 * file stays when the server goes. `max_payload`: largest request body, bytes.
 */
int server_create(struct server **server, struct loop *loop, struct instance *inst,
		  const char *path, u64 max_payload, struct err *err) MUST_CHECK;

/* Gives clients up to a second to take the answers that are due, then closes. Accepts NULL. */
void server_destroy(struct server *server);

#endif
