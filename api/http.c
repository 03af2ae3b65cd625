/*
 * http: see http.h.
 *
 * A head is read twice. scan() looks at every byte as it arrives and enforces the dialect: line
 * ends, characters, lengths, counts. When the empty line has come, llhttp reads the whole clean
 * head in one go and tells what the headers mean. So llhttp never sees a partial or dirty head, its
 * state never outlives a function call, and how the bytes were cut into pieces cannot matter.
 */
#include "http.h"

#include "../src/vmm/json.h"

#include <llhttp.h>
#include <stdio.h>
#include <strings.h>

static const char *const verb_name[HTTP_VERBS] = {
	[HTTP_VERB_GET] = "GET",
	[HTTP_VERB_PUT] = "PUT",
	[HTTP_VERB_PATCH] = "PATCH",
	[HTTP_VERB_DELETE] = "DELETE",
};

#define bad(p, ...) ((p)->state = HTTP_BAD, (void)fail(&(p)->error, -EINVAL, __VA_ARGS__), false)

static void next_request(struct http_parser *p)
{
	p->at = p->line = p->colon = p->lines = p->head_len = 0;
	p->want_continue = false;
	p->req = (struct http_request){ 0 };
	p->state = p->end > p->start ? HTTP_IN_HEAD : HTTP_IDLE;
}

size_t http_buffer_size(size_t max_payload)
{
	return HTTP_HEAD_MAX + max_payload;
}

void http_init(struct http_parser *p, char *buf, size_t max_payload)
{
	p->buf = buf;
	p->size = http_buffer_size(max_payload);
	p->max_payload = max_payload;
	p->start = p->end = 0;
	p->error.msg[0] = '\0';
	next_request(p);
}

char *http_room(struct http_parser *p, size_t *room)
{
	/* A whole request always fits behind a start of 0, so there is room until it is complete.
	 */
	if (p->start && p->end == p->size) {
		memmove(p->buf, p->buf + p->start, p->end - p->start);
		p->end -= p->start;
		p->start = 0;
	}
	*room = p->size - p->end;
	return p->buf + p->end;
}

void http_fed(struct http_parser *p, size_t n)
{
	assert(n <= p->size - p->end);
	p->end += n;
}

void http_done(struct http_parser *p)
{
	assert(p->state == HTTP_READY);
	p->start += p->head_len + p->req.body_len;
	if (p->start == p->end)
		p->start = p->end = 0;
	next_request(p);
}

/* ---- the request line --------------------------------------------------------------------- */

/* `GET http://host/path` means `/path` (RFC 9112, 3.2.2). */
static bool take_path(struct http_parser *p, const char *uri, size_t len)
{
	static const char scheme[] = "http://";
	const char *slash;

	if (!len)
		return bad(p, "Invalid URI: Empty URI not allowed.");
	if (len > strlen(scheme) && strncasecmp(uri, scheme, strlen(scheme)) == 0) {
		slash = memchr(uri + strlen(scheme), '/', len - strlen(scheme));
		len = slash ? len - (size_t)(slash - uri) : 0;
		uri = slash;
	}
	if (!len || uri[0] != '/')
		return bad(p, "Invalid URI: An absolute path is expected.");
	for (size_t i = 0; i < len; i++)
		if (uri[i] <= ' ' || uri[i] > '~')
			return bad(p, "Invalid URI: Only printable ASCII is allowed.");
	p->path = (size_t)(uri - (p->buf + p->start));
	p->req.path_len = len;
	return true;
}

static bool take_verb(struct http_parser *p, const char *verb, size_t len)
{
	for (unsigned i = 0; i < HTTP_VERBS; i++) {
		if (strlen(verb_name[i]) == len && memcmp(verb, verb_name[i], len) == 0) {
			p->req.verb = i;
			return true;
		}
	}
	return bad(p, "Invalid HTTP Method: Unsupported HTTP method.");
}

/* Checked as soon as it is complete: a client that speaks something else gets its answer at once.
 */
static bool request_line(struct http_parser *p, const char *line, size_t len)
{
	const char *end = line + len, *uri, *version;

	uri = memchr(line, ' ', len);
	if (!uri)
		return bad(p, "Invalid request.");
	if (!take_verb(p, line, (size_t)(uri++ - line)))
		return false;
	version = memchr(uri, ' ', (size_t)(end - uri));
	if (!version)
		return bad(p, "Invalid request.");
	if (!take_path(p, uri, (size_t)(version++ - uri)))
		return false;
	if (end - version != 8 ||
	    (memcmp(version, "HTTP/1.0", 8) != 0 && memcmp(version, "HTTP/1.1", 8) != 0))
		return bad(p, "Invalid HTTP Version: Unsupported HTTP version.");
	return true;
}

/* ---- the head, byte by byte --------------------------------------------------------------- */

static bool is_token_char(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool bad_line(struct http_parser *p)
{
	const char *line = p->buf + p->start + p->line;
	size_t len = p->at - p->line;

	if (!p->lines)
		return bad(p, "Invalid request.");
	for (size_t i = 0; i < len; i++)
		if (!is_token_char((unsigned char)line[i]))
			len = i;
	return bad(p, "Invalid header. Reason: Header is incorrectly formatted. Key: %.*s",
		   (int)len, line);
}

/* The line that ends before `at` is whole. */
static bool end_line(struct http_parser *p)
{
	size_t len = p->at - p->line;

	if (!p->lines)
		return request_line(p, p->buf + p->start + p->line, len);
	if (!len) {
		p->head_len = p->at + 2;
		return true;
	}
	if (!p->colon)
		return bad_line(p);
	if (p->lines > HTTP_HEADERS_MAX)
		return bad(p, "Invalid header. Reason: More than %d headers.", HTTP_HEADERS_MAX);
	return true;
}

/* One byte of a line, at offset `at`. */
static bool scan_char(struct http_parser *p, unsigned char c)
{
	if (p->at - p->line >= HTTP_LINE_MAX)
		return bad(p, "Overflow/Underflow occurred when parsing a request.");
	if (c < ' ' || c == 0x7f)
		return bad_line(p);
	if (p->lines && !p->colon) {
		if (c == ':' && p->at > p->line)
			p->colon = p->at;
		else if (!is_token_char(c))
			return bad_line(p);
	}
	return true;
}

/*
 * Goes on from `at` until the head is complete or the bytes are used up. A CR is looked at only
 * together with the byte after it.
 */
static bool scan(struct http_parser *p)
{
	const char *head = p->buf + p->start;
	size_t held = p->end - p->start;

	while (!p->head_len && p->at < held) {
		if (p->at + 1 >= HTTP_HEAD_MAX)
			return bad(p, "Overflow/Underflow occurred when parsing a request.");
		if (head[p->at] != '\r') {
			if (!scan_char(p, (unsigned char)head[p->at]))
				return false;
			p->at++;
			continue;
		}
		if (p->at + 1 == held)
			return true;
		if (head[p->at + 1] != '\n' || !end_line(p))
			return p->state == HTTP_BAD ? false : bad_line(p);
		p->at += 2;
		p->line = p->at;
		p->colon = 0;
		p->lines++;
	}
	return true;
}

/* ---- the headers' meaning ----------------------------------------------------------------- */

/* What llhttp's callbacks collect. */
struct headers {
	struct http_parser *p;
	const char *name, *value;
	size_t name_len, value_len;
	bool bad;
};

static bool header_is(const struct headers *h, const char *name)
{
	return h->name_len == strlen(name) && strncasecmp(h->name, name, h->name_len) == 0;
}

static bool value_is(const struct headers *h, const char *value)
{
	return h->value_len == strlen(value) && strncasecmp(h->value, value, h->value_len) == 0;
}

static bool bad_value(struct headers *h)
{
	return bad(h->p, "Invalid header. Reason: Invalid value. Key:%.*s; Value: %.*s",
		   (int)h->name_len, h->name, (int)h->value_len, h->value);
}

/* One to ten digits: no sign, no blank, no list. Repetition is found by llhttp. */
static bool content_length(struct headers *h)
{
	struct http_parser *p = h->p;
	u64 n = 0;

	if (h->value_len < 1 || h->value_len > 10)
		return bad_value(h);
	for (size_t i = 0; i < h->value_len; i++) {
		if (h->value[i] < '0' || h->value[i] > '9')
			return bad_value(h);
		n = n * 10 + (u64)(h->value[i] - '0');
	}
	if (n > UINT32_MAX)
		return bad_value(h);
	if (n > p->max_payload)
		return bad(
			p,
			"Request payload with size %llu is larger than the limit of %zu allowed by "
			"server.",
			(unsigned long long)n, p->max_payload);
	p->req.body_len = (size_t)n;
	return true;
}

/* Only what asks for an answer in no encoding at all is wrong: we never encode. */
static bool accept_encoding(struct headers *h)
{
	char text[HTTP_LINE_MAX + 1];
	size_t n = 0;
	bool identity, none, star_none;

	for (size_t i = 0; i < h->value_len; i++)
		if (h->value[i] != ' ')
			text[n++] = h->value[i];
	text[n] = '\0';
	none = strcasestr(text, "identity;q=0") != NULL && !strcasestr(text, "identity;q=0.");
	identity = strcasestr(text, "identity") != NULL;
	star_none = strstr(text, "*;q=0") != NULL && !strstr(text, "*;q=0.");
	return n && !none && (identity || !star_none) ? true : bad_value(h);
}

static bool take_header(struct headers *h)
{
	/* Blanks after the colon are the client's choice; two are not what any client sends. */
	if (header_is(h, "Content-Length")) {
		if (h->value - h->name > (ptrdiff_t)h->name_len + 2)
			return bad_value(h);
		return content_length(h);
	}
	if (header_is(h, "Transfer-Encoding"))
		return bad_value(h);
	if (header_is(h, "Accept-Encoding"))
		return accept_encoding(h);
	if (header_is(h, "Expect")) {
		h->p->want_continue = value_is(h, "100-continue");
		return h->p->want_continue ? true : bad_value(h);
	}
	return true;
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
	struct headers *h = ll->data;

	if (!h->name_len)
		h->name = at;
	h->name_len += len;
	return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t len)
{
	struct headers *h = ll->data;

	if (!h->value_len)
		h->value = at;
	h->value_len += len;
	return 0;
}

static int on_header(llhttp_t *ll)
{
	struct headers *h = ll->data;

	if (!h->value)
		h->value = h->name + h->name_len;
	while (h->value_len && h->value[h->value_len - 1] == ' ')
		h->value_len--;
	h->bad = !take_header(h);
	h->name_len = h->value_len = 0;
	h->value = NULL;
	return h->bad ? HPE_USER : 0;
}

static int on_headers(llhttp_t *ll)
{
	struct headers *h = ll->data;

	h->p->req.close = !llhttp_should_keep_alive(ll);
	return HPE_PAUSED;
}

/* llhttp stopped at `at`, somewhere in the header line that it does not like. */
static bool bad_header(struct headers *h, const char *at)
{
	const char *head = h->p->buf + h->p->start, *colon, *end;

	if (at > head + 1 && at[-1] == '\n')
		at -= 2; /* it noticed at the beginning of the next one */
	while (at > head && at[-1] != '\n')
		at--;
	end = memchr(at, '\r', h->p->head_len - (size_t)(at - head));
	colon = end ? memchr(at, ':', (size_t)(end - at)) : NULL;
	if (!colon)
		return bad(h->p, "Invalid request.");
	h->name = at;
	h->name_len = (size_t)(colon - at);
	for (colon++; colon < end && *colon == ' '; colon++)
		;
	h->value = colon;
	h->value_len = (size_t)(end - colon);
	return bad_value(h);
}

static bool read_headers(struct http_parser *p)
{
	static const llhttp_settings_t settings = { .on_header_field = on_field,
						    .on_header_value = on_value,
						    .on_header_value_complete = on_header,
						    .on_headers_complete = on_headers };
	struct headers h = { .p = p };
	llhttp_errno_t r;
	llhttp_t ll;

	llhttp_init(&ll, HTTP_REQUEST, &settings);
	ll.data = &h;
	r = llhttp_execute(&ll, p->buf + p->start, p->head_len);
	if (h.bad)
		return false;
	if (r != HPE_PAUSED)
		return bad_header(&h, llhttp_get_error_pos(&ll));
	if (!p->req.body_len)
		p->want_continue = false;
	return true;
}

/* ---- state -------------------------------------------------------------------------------- */

enum http_state http_next(struct http_parser *p)
{
	size_t held = p->end - p->start;

	if (p->state == HTTP_BAD || p->state == HTTP_READY)
		return p->state;
	if (!p->head_len) {
		if (!scan(p) || (p->head_len && !read_headers(p)))
			return HTTP_BAD;
		if (!p->head_len)
			return p->state = held ? HTTP_IN_HEAD : HTTP_IDLE;
	}
	if (p->want_continue) {
		p->want_continue = false;
		return p->state = HTTP_CONTINUE;
	}
	if (held < p->head_len + p->req.body_len)
		return p->state = HTTP_IN_BODY;
	p->req.path = p->buf + p->start + p->path;
	p->req.body = p->buf + p->start + p->head_len;
	return p->state = HTTP_READY;
}

/* ---- answers ------------------------------------------------------------------------------ */

size_t http_put_reply(char *out, size_t size, const struct http_reply *reply)
{
	char length[96] = "";
	int n;

	if (reply->body)
		snprintf(length, sizeof length,
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n",
			 reply->body_len);
	/* The blank before CRLF stands where others have a reason phrase. */
	n = snprintf(out, size,
		     "HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: %s\r\n%s%s\r\n",
		     reply->status, reply->close ? "close" : "keep-alive",
		     reply->deprecated ? "Deprecation: true\r\n" : "", length);
	if (n < 0 || (size_t)n >= size || reply->body_len > size - (size_t)n)
		return 0;
	if (reply->body)
		memcpy(out + n, reply->body, reply->body_len);
	return (size_t)n + reply->body_len;
}

size_t http_put_continue(char *out, size_t size, const struct http_parser *p)
{
	const char *line_end = memchr(p->buf + p->start, '\r', p->head_len);
	int n = snprintf(out, size,
			 "%.8s 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
			 line_end - 8);

	return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}

size_t http_put_error(char *out, size_t size, const struct err *error)
{
	char body[4 * sizeof error->msg + 128], text[sizeof error->msg + 64];
	struct json_out json = { .buf = body, .size = sizeof body };

	snprintf(text, sizeof text, "%s\nAll previous unanswered requests will be dropped.",
		 error->msg);
	json_put(&json, "{ \"error\": ");
	json_put_string(&json, text);
	json_put(&json, " }");
	return http_put_reply(
		out, size,
		&(struct http_reply){
			.status = 400, .body = body, .body_len = json.len, .close = true });
}
