/*
 * conn: one client of the API: bytes in, requests, answers, bytes out, and until when.
 *
 * Driven by one function, pump(): answer what is complete, write what can be written, and again
 * while that helps. Then settle() looks at what is left and decides what to wait for. Both run
 * after every event, so that no event needs to know about another. Loop thread only.
 */
#ifndef CONN_H
#define CONN_H

#include "../src/vmm/instance.h"
#include "http.h"

/* What a connection is waiting for; each stage has its deadline (server.h). */
enum conn_stage { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_WRITE, CONN_LINGER, CONN_STAGES };

/* What all connections share; outlives them. */
struct conn_env {
	struct loop *loop;
	struct instance *inst;
	size_t max_payload, in_size, out_size; /* bytes; sizes of buffers in whole pages */
	void (*changed)(void *owner);	       /* a deadline, or the connection has gone */
	void *owner;
};

struct conn {
	const struct conn_env *env;
	struct loop_source source; /* fd -1: free */
	struct http_parser parser;
	char *in, *out;		/* page aligned */
	size_t out_at, out_end; /* answers not written yet */
	bool eof;		/* the client sends no more */
	bool closing;		/* nothing more is answered */
	bool lingering;		/* all is said; what still comes in is thrown away */
	enum conn_stage stage;
	u64 deadline_ns;    /* 0: none */
	u64 answered, seen; /* requests; as counted when the deadline was set */
};

/* Bytes that the output buffer must have. */
size_t conn_out_size(void);

/* Takes `fd`. */
void conn_open(struct conn *c, int fd);
void conn_close(struct conn *c);

/* As if bytes had come: finds out whether the client is still there. */
void conn_poke(struct conn *c);

/* Writes what can be written at once. False: the connection is dead. */
bool conn_flush(struct conn *c);
size_t conn_unwritten(const struct conn *c);

#endif
