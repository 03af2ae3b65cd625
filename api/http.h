/*
 * http: bytes to requests and answers to bytes, in the dialect of the Firecracker API
 * (docs/api.md).
 *
 * The parser is a pure function of the bytes it has been given: however they were cut into pieces,
 * the same requests and the same error come out, in the same order. It sees one connection, owns no
 * memory (the caller lends the buffer) and does no I/O.
 *
 * It takes what real clients send and nothing more: HTTP/1.0 or 1.1, four methods, CRLF line ends,
 * bodies by one plain Content-Length. Whatever could make two readers disagree about where a
 * request ends (Transfer-Encoding, repeated or odd Content-Length, folded lines, bare CR or LF,
 * control characters, blanks round a header's name) is an error, and the first error is the last
 * thing that is read from a connection.
 */
#ifndef HTTP_H
#define HTTP_H

#include "../src/vmm/base.h"
#include "../src/vmm/err.h"

#define HTTP_LINE_MAX	     1024 /* bytes of the request line and of a header line, without CRLF */
#define HTTP_HEADERS_MAX     64
#define HTTP_HEAD_MAX	     8192 /* bytes, with the empty line */
#define HTTP_PAYLOAD_DEFAULT 51200

enum http_verb { HTTP_VERB_GET, HTTP_VERB_PUT, HTTP_VERB_PATCH, HTTP_VERB_DELETE, HTTP_VERBS };

/* Points into the parser's buffer; good until http_done() or http_feed(). */
struct http_request {
	enum http_verb verb;
	const char *path; /* absolute, printable ASCII, not terminated */
	size_t path_len;
	const char *body;
	size_t body_len;
	bool close; /* the client wants the connection closed after the answer */
};

enum http_state {
	HTTP_IDLE,     /* not one byte of a request */
	HTTP_IN_HEAD,  /* some of the head */
	HTTP_CONTINUE, /* head complete, the client waits for a "100": say it, call http_next()
			  again */
	HTTP_IN_BODY,  /* head complete, body not */
	HTTP_READY,    /* a whole request: answer it, then http_done() */
	HTTP_BAD,      /* hopeless: answer http_put_error() with `error`, then close */
};

struct http_parser {
	char *buf; /* of the caller: HTTP_HEAD_MAX + max_payload bytes */
	size_t size, max_payload;
	size_t start, end; /* what is held: the present request and what follows it */

	/* The present request; offsets count from `start`. */
	size_t at;	 /* scanned so far */
	size_t line;	 /* where the present line begins */
	size_t colon;	 /* of the present header line; 0: not seen yet */
	unsigned lines;	 /* complete ones */
	size_t head_len; /* 0: not complete yet */
	size_t path;	 /* where the request's path begins */
	bool want_continue;
	struct http_request req;

	enum http_state state;
	struct err error;
};

struct http_reply {
	int status;
	const char *body; /* JSON; NULL: none, and no length either */
	size_t body_len;
	bool deprecated, close;
};

/* The buffer's size for a payload limit. */
size_t http_buffer_size(size_t max_payload);

void http_init(struct http_parser *p, char *buf, size_t max_payload);

/*
 * Where the next bytes may be put, and how many; then say how many came. There is always room for
 * at least one, except in HTTP_READY and HTTP_BAD.
 */
char *http_room(struct http_parser *p, size_t *room);
void http_fed(struct http_parser *p, size_t n);

/* Goes as far as the bytes allow. */
enum http_state http_next(struct http_parser *p);

/* The request was answered: on to what follows it. */
void http_done(struct http_parser *p);

/* Number of bytes written, 0 if `size` is too small. */
size_t http_put_reply(char *out, size_t size, const struct http_reply *reply);
size_t http_put_continue(char *out, size_t size, const struct http_parser *p);

/* The answer to HTTP_BAD: 400, `error` instead of `fault_message`, Connection: close. */
size_t http_put_error(char *out, size_t size, const struct err *error);

#endif
