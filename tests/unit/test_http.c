/*
 * http: the dialect, byte by byte. Whatever is fed is fed again cut at every place and one byte at
 * a time, and must give the same requests and the same error.
 */
#include "test.h"

#include "api/http.h"

#include <stdio.h>
#include <stdlib.h>

#define PAYLOAD	      100
#define complain(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static char buffer[HTTP_HEAD_MAX + PAYLOAD];
static struct http_parser parser;

/* Everything that came out of one stream, as text: "PUT /x {}|close|100|BAD ...|". */
struct outcome {
	char text[65536];
	size_t len;
};

static void note(struct outcome *o, const char *fmt, ...) PRINTF(2, 3);
static void note(struct outcome *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	o->len += (size_t)vsnprintf(o->text + o->len, sizeof o->text - o->len, fmt, ap);
	va_end(ap);
	assert_true(o->len < sizeof o->text);
}

static enum http_state drain(struct outcome *o)
{
	static const char *const verb[] = { "GET", "PUT", "PATCH", "DELETE" };
	enum http_state s;

	for (;;) {
		const struct http_request *req = &parser.req;

		s = http_next(&parser);
		if (s == HTTP_CONTINUE)
			note(o, "100|");
		else if (s == HTTP_READY) {
			note(o, "%s %.*s %.*s|%s", verb[req->verb], (int)req->path_len, req->path,
			     (int)req->body_len, req->body, req->close ? "close|" : "");
			http_done(&parser);
		} else
			return s;
	}
}

static void feed(struct outcome *o, const char *bytes, size_t len)
{
	while (len) {
		size_t room, n;
		char *at = http_room(&parser, &room);

		assert_true(room > 0);
		n = MIN(room, len);
		memcpy(at, bytes, n);
		http_fed(&parser, n);
		bytes += n;
		len -= n;
		if (drain(o) == HTTP_BAD)
			return;
	}
}

static void finish(struct outcome *o)
{
	enum http_state s = http_next(&parser);

	if (s == HTTP_BAD)
		note(o, "BAD %s", parser.error.msg);
	else if (s != HTTP_IDLE)
		note(o, s == HTTP_IN_HEAD ? "head..." : "body...");
}

/* Cut into pieces of `step` bytes, the first one being `first`. */
static void run(struct outcome *o, const char *bytes, size_t len, size_t first, size_t step)
{
	o->len = 0;
	o->text[0] = '\0';
	http_init(&parser, buffer, PAYLOAD);
	for (size_t at = 0, n = first; at < len && parser.state != HTTP_BAD; at += n, n = step) {
		n = MIN(n, len - at);
		feed(o, bytes + at, n);
	}
	finish(o);
}

static void expect_bytes(const char *bytes, size_t len, const char *expected)
{
	static struct outcome whole, cut;

	run(&whole, bytes, len, len, len);
	if (strcmp(whole.text, expected) != 0)
		complain("%.200s\n gave \"%s\"\n not  \"%s\"", bytes, whole.text, expected);
	for (size_t first = 1; first < MIN(len, 400); first++) {
		run(&cut, bytes, len, first, len);
		if (strcmp(cut.text, expected) != 0)
			complain("cut at %zu: \"%s\", not \"%s\"", first, cut.text, expected);
	}
	run(&cut, bytes, len, 1, 1);
	assert_string_equal(cut.text, expected);
}

static void expect(const char *bytes, const char *expected)
{
	expect_bytes(bytes, strlen(bytes), expected);
}

#define FORMAT(key)	  "BAD Invalid header. Reason: Header is incorrectly formatted. Key: " key
#define VALUE(key, value) "BAD Invalid header. Reason: Invalid value. Key:" key "; Value: " value

/* ---- what clients send ---------------------------------------------------------------------- */

static void takes_what_real_clients_send(void **state)
{
	(void)state;
	/* go-sdk, as captured */
	expect("PUT /machine-config HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "
	       "Go-http-client/1.1\r\n"
	       "Content-Length: 47\r\nAccept: application/json\r\nContent-Type: "
	       "application/json\r\n"
	       "Accept-Encoding: "
	       "gzip\r\n\r\n{\"mem_size_mib\":64,\"smt\":false,\"vcpu_count\":1}\n",
	       "PUT /machine-config {\"mem_size_mib\":64,\"smt\":false,\"vcpu_count\":1}\n|");
	/* curl, requests, http.client, hyper */
	expect("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/7.88.1\r\nAccept: "
	       "*/*\r\n\r\n",
	       "GET / |");
	expect("PATCH /vm HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.28.1\r\n"
	       "Accept-Encoding: gzip, deflate, br\r\nAccept: */*\r\nConnection: keep-alive\r\n"
	       "Content-Length: 2\r\n\r\n{}",
	       "PATCH /vm {}|");
	expect("GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n", "GET / |");
	expect("DELETE /drives/a HTTP/1.1\r\nhost: x\r\ncontent-length:2\r\n\r\n{}",
	       "DELETE /drives/a {}|");
	expect("GET http://localhost/version HTTP/1.1\r\n\r\n", "GET /version |");
	expect("GET / HTTP/1.1\r\nX:\r\nY: \r\nZ: a  b \r\n\r\n", "GET / |");
}

static void answers_pipelined_requests_in_order(void **state)
{
	char many[64 * 40] = "", expected[20 * 40] = "";

	(void)state;
	for (int i = 0; i < 40; i++) {
		sprintf(many + strlen(many), "PUT /%d HTTP/1.1\r\nContent-Length: 2\r\n\r\n%02d", i,
			i);
		sprintf(expected + strlen(expected), "PUT /%d %02d|", i, i);
	}
	expect(many, expected);
}

static void leftovers_are_the_next_request(void **state)
{
	(void)state;
	expect("PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n{}", "PUT /a {|head...");
	expect("PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\r\n",
	       "PUT /a {}|BAD Invalid request.");
	expect("PUT /a HTTP/1.1\r\n\r\n{\"a\":1}\r\n", "PUT /a |BAD Invalid request.");
}

static void closes_when_the_client_wants_that(void **state)
{
	(void)state;
	expect("GET / HTTP/1.0\r\n\r\n", "GET / |close|");
	expect("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / |");
	expect("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "GET / |close|");
	expect("GET / HTTP/1.1\r\nConnection: Close, TE\r\n\r\n", "GET / |close|");
	expect("GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
	       "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	       "GET / |");
}

static void says_100_once_when_a_body_is_waited_for(void **state)
{
	char line[128];
	size_t n;

	(void)state;
	expect("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
	       "100|PUT /a {}|");
	expect("PUT /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n",
	       "100|body...");
	expect("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", "PUT /a |");
	expect("GET /a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", "GET /a |");
	expect("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n",
	       "BAD Request payload with size 101 is larger than the limit of 100 allowed by "
	       "server.");
	expect("PUT /a HTTP/1.1\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
	       VALUE("Expect", "200-ok"));
	http_init(&parser, buffer, PAYLOAD);
	strcpy(buffer, "PUT /a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	http_fed(&parser, strlen(buffer));
	assert_int_equal(http_next(&parser), HTTP_CONTINUE);
	n = http_put_continue(line, sizeof line, &parser);
	assert_int_equal(n, strlen(line));
	assert_string_equal(line, "HTTP/1.0 100 \r\nServer: Firecracker API\r\n"
				  "Connection: keep-alive\r\n\r\n");
}

/* ---- what nobody should send ---------------------------------------------------------------- */

static void refuses_odd_request_lines(void **state)
{
	static const struct {
		const char *line, *says;
	} bad[] = {
		{ "", "BAD Invalid request." },
		{ "GET", "BAD Invalid request." },
		{ "GET /", "BAD Invalid request." },
		{ " GET / HTTP/1.1", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "get / HTTP/1.1", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "POST / HTTP/1.1", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "HEAD / HTTP/1.1", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "CONNECT a:1 HTTP/1.1", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "PRI * HTTP/2.0", "BAD Invalid HTTP Method: Unsupported HTTP method." },
		{ "GET / HTTP/0.9", "BAD Invalid HTTP Version: Unsupported HTTP version." },
		{ "GET / HTTP/2.0", "BAD Invalid HTTP Version: Unsupported HTTP version." },
		{ "GET / http/1.1", "BAD Invalid HTTP Version: Unsupported HTTP version." },
		{ "GET / HTTP/1.1 ", "BAD Invalid HTTP Version: Unsupported HTTP version." },
		{ "GET / x HTTP/1.1", "BAD Invalid HTTP Version: Unsupported HTTP version." },
		{ "GET  / HTTP/1.1", "BAD Invalid URI: Empty URI not allowed." },
		{ "GET * HTTP/1.1", "BAD Invalid URI: An absolute path is expected." },
		{ "GET version HTTP/1.1", "BAD Invalid URI: An absolute path is expected." },
		{ "GET http:// HTTP/1.1", "BAD Invalid URI: An absolute path is expected." },
		{ "GET http://host HTTP/1.1", "BAD Invalid URI: An absolute path is expected." },
		{ "GET https://host/ HTTP/1.1", "BAD Invalid URI: An absolute path is expected." },
		{ "GET /\xc3\xa9 HTTP/1.1", "BAD Invalid URI: Only printable ASCII is allowed." },
		{ "GET\t/\tHTTP/1.1", "BAD Invalid request." },
		{ "\x16\x03\x01\x02", "BAD Invalid request." },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof text, "%s\r\nHost: a\r\n\r\n", bad[i].line);
		expect(text, bad[i].says);
	}
}

static void refuses_odd_headers(void **state)
{
	static const struct {
		const char *header, *says;
	} bad[] = {
		{ "NoColon", FORMAT("NoColon") },
		{ ": value", FORMAT("") },
		{ "Key : value", FORMAT("Key") },
		{ "Ke y: value", FORMAT("Ke") },
		{ "K\xc3\xa9y: value", FORMAT("K") },
		{ "Key: a\tb", FORMAT("Key") },
		{ "Key: a\nb", FORMAT("Key") },
		{ "Key: a\rb", FORMAT("Key") },
		{ "Key: a\r\n folded", FORMAT("") },
		{ "Key: a\r\n\tfolded", FORMAT("") },
		{ "Key: a\x7f", FORMAT("Key") },
		{ "Accept-Encoding:", VALUE("Accept-Encoding", "") },
		{ "Accept-Encoding: identity;q=0", VALUE("Accept-Encoding", "identity;q=0") },
		{ "Accept-Encoding: gzip, *;q=0", VALUE("Accept-Encoding", "gzip, *;q=0") },
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof text, "GET / HTTP/1.1\r\n%s\r\n\r\n", bad[i].header);
		expect(text, bad[i].says);
	}
	expect_bytes("GET / HTTP/1.1\r\nA: \0b\r\n\r\n", 25, FORMAT("A"));
	expect_bytes("GET /\0 HTTP/1.1\r\n\r\n", 20, "BAD Invalid request.");
	expect("GET / HTTP/1.1\nHost: a\n\n", "BAD Invalid request.");
	expect("GET / HTTP/1.1\r\nHost: a\n\r\n", FORMAT("Host"));
	expect("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "BAD Invalid request.");
	expect("GET / HTTP/1.1\r\nAccept-Encoding: identity;q=0.5, *;q=0\r\n\r\n", "GET / |");
}

static void takes_one_plain_content_length_only(void **state)
{
	static const char *const bad[] = { "-1",
					   "+5",
					   " 5",
					   "5 5",
					   "0x5",
					   "5,5",
					   "5;",
					   "4294967296",
					   "18446744073709551616",
					   "1000000000000000000000000000000",
					   "",
					   "five",
					   "5.0" };
	char text[256], says[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *shown = *bad[i] == ' ' ? bad[i] + 1 : bad[i];

		snprintf(text, sizeof text, "PUT / HTTP/1.1\r\nContent-Length: %s\r\n\r\n12345",
			 bad[i]);
		snprintf(says, sizeof says, VALUE("Content-Length", "%s"), shown);
		expect(text, says);
	}
	expect("PUT / HTTP/1.1\r\nContent-Length : 5\r\n\r\n12345", FORMAT("Content-Length"));
	expect("PUT / HTTP/1.1\r\nContent-Length: 005\r\n\r\n12345", "PUT / 12345|");
	expect("PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
	       "BAD Request payload with size 101 is larger than the limit of 100 allowed by "
	       "server.");
	expect("PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345",
	       VALUE("Content-Length", "5"));
	expect("PUT / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\n12345",
	       VALUE("content-length", "6"));
}

static void refuses_every_transfer_encoding(void **state)
{
	static const char *const values[] = { "chunked",	   "CHUNKED",  "identity",
					      "chunked, identity", "xchunked", "gzip" };
	char text[256];
	static struct outcome o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		for (int with_length = 0; with_length < 3; with_length++) {
			snprintf(text, sizeof text,
				 "PUT / HTTP/1.1\r\n%sTransfer-Encoding: %s\r\n%s\r\n0\r\n\r\n",
				 with_length == 1 ? "Content-Length: 5\r\n" : "", values[i],
				 with_length == 2 ? "Content-Length: 5\r\n" : "");
			run(&o, text, strlen(text), strlen(text), 1);
			assert_true(strncmp(o.text, "BAD Invalid header. Reason: Invalid value.",
					    42) == 0);
			expect(text, o.text);
		}
	}
}

static void bounds_lines_headers_and_heads(void **state)
{
	static char text[20000];
	char *p = text;

	(void)state;
	/* The longest request line, and one more. */
	p += sprintf(p, "GET /");
	memset(p, 'a', HTTP_LINE_MAX - 14);
	p += HTTP_LINE_MAX - 14;
	strcpy(p, " HTTP/1.1\r\n\r\n");
	http_init(&parser, buffer, PAYLOAD);
	memcpy(buffer, text, strlen(text));
	http_fed(&parser, strlen(text));
	assert_int_equal(http_next(&parser), HTTP_READY);
	strcpy(p, "a HTTP/1.1\r\n\r\n");
	expect(text, "BAD Overflow/Underflow occurred when parsing a request.");

	/* No newline ever. */
	memset(text, 'G', sizeof text - 1);
	expect(text, "BAD Overflow/Underflow occurred when parsing a request.");

	/* 64 headers, and one more. */
	p = text + sprintf(text, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < HTTP_HEADERS_MAX; i++)
		p += sprintf(p, "H%d: x\r\n", i);
	strcpy(p, "\r\n");
	expect(text, "GET / |");
	strcpy(p, "Last: x\r\n\r\n");
	expect(text, "BAD Invalid header. Reason: More than 64 headers.");

	/* A head of 8 KiB in long lines. */
	p = text + sprintf(text, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 9; i++)
		p += sprintf(p, "H%d: %01000d\r\n", i, 0);
	strcpy(p, "\r\n");
	expect(text, "BAD Overflow/Underflow occurred when parsing a request.");
}

/* ---- answers -------------------------------------------------------------------------------- */

static void words_answers_in_the_dialect(void **state)
{
	static char out[16384];
	struct http_reply reply = { .status = 204 };
	struct err error = { "Key:\"\xff" };
	size_t n;

	(void)state;
	n = http_put_reply(out, sizeof out, &reply);
	assert_int_equal(n, strlen(out));
	assert_string_equal(out, "HTTP/1.1 204 \r\nServer: Firecracker API\r\n"
				 "Connection: keep-alive\r\n\r\n");
	reply = (struct http_reply){
		.status = 400, .body = "{}", .body_len = 2, .deprecated = true
	};
	n = http_put_reply(out, sizeof out, &reply);
	out[n] = '\0';
	assert_string_equal(out, "HTTP/1.1 400 \r\nServer: Firecracker API\r\n"
				 "Connection: keep-alive\r\nDeprecation: true\r\n"
				 "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
	for (size_t size = 0; size < n; size++)
		assert_int_equal(http_put_reply(out, size, &reply), 0);
	n = http_put_error(out, sizeof out, &error);
	out[n] = '\0';
	assert_string_equal(out, "HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: close\r\n"
				 "Content-Type: application/json\r\nContent-Length: 75\r\n\r\n"
				 "{ \"error\": \"Key:\\\"\xef\xbf\xbd\\nAll previous unanswered "
				 "requests will be dropped.\" }");
}

static void an_error_of_any_bytes_fits(void **state)
{
	static char out[16384];
	struct err error;

	(void)state;
	memset(error.msg, 0xff, sizeof error.msg);
	error.msg[sizeof error.msg - 1] = '\0';
	assert_true(http_put_error(out, sizeof out, &error) > 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_what_real_clients_send),
		cmocka_unit_test(answers_pipelined_requests_in_order),
		cmocka_unit_test(leftovers_are_the_next_request),
		cmocka_unit_test(closes_when_the_client_wants_that),
		cmocka_unit_test(says_100_once_when_a_body_is_waited_for),
		cmocka_unit_test(refuses_odd_request_lines),
		cmocka_unit_test(refuses_odd_headers),
		cmocka_unit_test(takes_one_plain_content_length_only),
		cmocka_unit_test(refuses_every_transfer_encoding),
		cmocka_unit_test(bounds_lines_headers_and_heads),
		cmocka_unit_test(words_answers_in_the_dialect),
		cmocka_unit_test(an_error_of_any_bytes_fits),
	};

	return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
