/*
 * routes: every request that needs no machine, and the exact words of the answers. Run with --print
 * it prints the tables of paths and bodies instead, for those who compare them with the
 * description.
 */
#include "test.h"

#include "api/routes.h"
#include "src/vmm/schema.h"

#include <stdio.h>
#include <stdlib.h>

#define complain(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))
#define JSON_ERROR    "An error occurred when deserializing the json body of a request: "
#define BEFORE	      "The requested operation is not supported before starting the microVM."

static const char *const verb_name[] = { "GET", "PUT", "PATCH", "DELETE" };
static struct instance *inst;
static struct loop *loop;
static struct err err;
static struct http_reply reply;

static int fresh(void **state)
{
	struct vm_callbacks none = { 0 };

	(void)state;
	assert_int_equal(loop_create(&loop, &err), 0);
	return instance_create(&inst, "an-id", loop, &none, &err);
}

static int gone(void **state)
{
	(void)state;
	instance_destroy(inst);
	loop_destroy(loop);
	return 0;
}

/* The answer's body. */
static const char *ask(const char *verb, const char *path, const char *body)
{
	struct http_request req = {
		.path = path, .path_len = strlen(path), .body = body, .body_len = strlen(body)
	};
	static char text[4096];

	while (strcmp(verb_name[req.verb], verb) != 0)
		req.verb++;
	routes_handle(inst, &req, &reply);
	snprintf(text, sizeof text, "%.*s", (int)reply.body_len, reply.body ? reply.body : "");
	assert_int_equal(reply.status, !reply.body		       ? 204
				       : strstr(text, "fault_message") ? 400
								       : 200);
	assert_false(reply.close);
	return text;
}

/* The fault, or "" for success. */
static const char *fault(const char *verb, const char *path, const char *body)
{
	static struct json doc;
	static char text[2048];
	const char *answer = ask(verb, path, body);
	int at = 0, key, value;

	if (reply.status != 400)
		return "";
	assert_int_equal(json_parse(&doc, answer, strlen(answer), &err), 0);
	value = json_each(&doc, JSON_ROOT, &at, &key);
	assert_true(json_is(&doc, key, "fault_message"));
	assert_int_equal(json_text(&doc, value, text, sizeof text), 0);
	return text;
}

struct row {
	const char *verb, *path, *body, *says;
};

static void check(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *got = fault(rows[i].verb, rows[i].path, rows[i].body);

		if (strcmp(got, rows[i].says) != 0)
			complain("%s %s %s:\n     \"%s\"\n not \"%s\"", rows[i].verb, rows[i].path,
				 rows[i].body, got, rows[i].says);
	}
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void tells_about_itself(void **state)
{
	(void)state;
	assert_string_equal(
		ask("GET", "/", ""),
		"{\"id\":\"an-id\",\"state\":\"Not started\",\"vmm_version\":\"1.16.0\","
		"\"app_name\":\"Firecracker\"}");
	assert_string_equal(ask("GET", "/version", ""), "{\"firecracker_version\":\"1.16.0\"}");
	assert_string_equal(ask("GET", "/machine-config", ""),
			    "{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,"
			    "\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
	assert_memory_equal(ask("GET", "/vm/config", ""), "{\"balloon\":null,\"drives\":[],", 27);
}

static void says_which_request_it_does_not_know(void **state)
{
	static const struct row rows[] = {
		{ "GET", "/", "x", "GET request cannot have a body." },
		{ "GET", "/nowhere", "x", "GET request cannot have a body." },
		{ "PUT", "/", "", "Empty PUT request." },
		{ "PUT", "/nowhere", "", "Empty PUT request." },
		{ "PATCH", "/vm", "", "Empty PATCH request." },
		{ "DELETE", "/drives/a", "x", "Empty Delete request." },
		{ "PUT", "/", "{}", "Invalid request method and/or path: PUT ." },
		{ "PUT", "/foo", "{}", "Invalid request method and/or path: PUT foo." },
		{ "PUT", "/foo/bar", "{}", "Invalid request method and/or path: PUT foo." },
		{ "GET", "/foo", "", "Invalid request method and/or path: GET foo." },
		{ "GET", "/machine-config?x=1", "",
		  "Invalid request method and/or path: GET machine-config?x=1." },
		{ "GET", "/machine%2dconfig", "",
		  "Invalid request method and/or path: GET machine%2dconfig." },
		{ "GET", "/machine-config#a", "",
		  "Invalid request method and/or path: GET machine-config#a." },
		{ "GET", "//version", "", "Invalid request method and/or path: GET ." },
		{ "GET", "/vm/../version", "", "Invalid request method and/or path: GET vm." },
		{ "GET", "/vm", "", "Invalid request method and/or path: GET vm." },
		{ "GET", "/version/x", "", "Invalid request method and/or path: GET version." },
		{ "DELETE", "/version", "", "Invalid request method and/or path: DELETE version." },
		{ "PATCH", "/boot-source", "{}",
		  "Invalid request method and/or path: PATCH boot-source." },
		{ "PUT", "/snapshot", "{}", "Missing snapshot operation type." },
		{ "PUT", "/snapshot/x", "{}",
		  "Invalid request method and/or path: PUT /snapshot/x." },
		{ "GET", "/version/", "", "" }, /* one trailing slash is nothing */
		{ "GET", "/version//", "", "Invalid request method and/or path: GET version." },
	};

	(void)state;
	check(rows, ARRAY_SIZE(rows));
}

static void looks_at_ids_before_bodies(void **state)
{
	static const char bad[] =
		"API Resource IDs can only contain alphanumeric characters and underscores.";
	static const struct row rows[] = {
		{ "PUT", "/drives", "x", "The ID cannot be empty." },
		{ "PUT", "/drives/", "x", "The ID cannot be empty." },
		{ "PUT", "/drives/a-b", "x", bad },
		{ "PUT", "/drives/a%20", "x", bad },
		{ "PUT", "/drives/a/b", "{}", "Invalid request method and/or path: PUT drives." },
		{ "PUT", "/drives/a", "{\"drive_id\":\"b\",\"is_root_device\":true}",
		  "The id from the path does not match the id from the body!" },
		{ "PATCH", "/drives/a", "{\"drive_id\":\"b\"}",
		  "The id from the path does not match the id from the body!" },
		{ "PUT", "/drives/a012345678901234567890123456789012345678901234567890123456789012",
		  "x", JSON_ERROR "expected value at line 1 column 1." },
		{ "PUT",
		  "/drives/b0123456789012345678901234567890123456789012345678901234567890123", "x",
		  "The ID is too long: at most 64 characters." },
	};

	(void)state;
	check(rows, ARRAY_SIZE(rows));
}

static void words_bad_bodies_as_clients_know_them(void **state)
{
	static const struct row rows[] = {
		{ "PUT", "/machine-config", "{}",
		  JSON_ERROR "missing field `vcpu_count` at line 1 column 2." },
		{ "PUT", "/machine-config", "{\"vcpu_count\":1}",
		  JSON_ERROR "missing field `mem_size_mib` at line 1 column 16." },
		{ "PATCH", "/machine-config", "{}", "Empty PATCH request." },
		{ "PATCH", "/machine-config", "{\"smt\":null}", "Empty PATCH request." },
		{ "PUT", "/actions", "{\"action_type\":\"foo\"}",
		  JSON_ERROR
		  "unknown variant `foo`, expected one of `FlushMetrics`, `InstanceStart`, "
		  "`SendCtrlAltDel` at line 1 column 20." },
		{ "PUT", "/actions", "{\"action_type\":\"InstanceStart\",\"payload\":1}",
		  JSON_ERROR
		  "unknown field `payload`, expected `action_type` at line 1 column 40." },
		{ "PATCH", "/vm", "{\"state\":\"x\"}",
		  JSON_ERROR
		  "unknown variant `x`, expected `Paused` or `Resumed` at line 1 column 12." },
		{ "PUT", "/serial", "{\"x\":1}",
		  JSON_ERROR
		  "unknown field `x`, expected `serial_out_path` or `rate_limiter` at line 1 "
		  "column 4." },
		{ "PUT", "/entropy", "{\"rate_limiter\":{\"x\":1}}",
		  JSON_ERROR
		  "unknown field `x`, expected `bandwidth` or `ops` at line 1 column 20." },
		{ "PUT", "/entropy", "{\"rate_limiter\":{\"ops\":{\"x\":1}}}",
		  JSON_ERROR "missing field `size` at line 1 column 30." },
		{ "PUT", "/entropy",
		  "{\"rate_limiter\":{\"ops\":{\"x\":1,\"size\":1,\"refill_time\":1}}}", "" },
		{ "PUT", "/entropy", "{",
		  JSON_ERROR "EOF while parsing an object at line 1 column 1." },
		{ "PUT", "/entropy", "{}\n", "" },
		{ "PUT", "/entropy", "{\"rate_limiter\":null}", "" },
		{ "PUT", "/entropy", "{}{}", JSON_ERROR "trailing characters at line 1 column 3." },
	};

	(void)state;
	check(rows, ARRAY_SIZE(rows));
}

static void keeps_to_the_order_of_things(void **state)
{
	static const struct row rows[] = {
		{ "PATCH", "/vm", "{\"state\":\"Paused\"}", BEFORE },
		{ "PATCH", "/vm", "{\"state\":\"Resumed\"}", BEFORE },
		{ "PUT", "/actions", "{\"action_type\":\"SendCtrlAltDel\"}", BEFORE },
		{ "PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}", BEFORE },
		{ "PATCH", "/drives/a", "{\"drive_id\":\"a\"}", BEFORE },
		{ "DELETE", "/drives/a", "", BEFORE },
		{ "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}",
		  "Start microvm error: Cannot start microvm without kernel configuration." },
		{ "PUT", "/metrics", "{}",
		  "The requested operation is not supported: PUT /metrics is not implemented yet." },
		{ "PATCH", "/balloon/hinting/start", "", BEFORE },
		{ "GET", "/balloon", "", "Balloon config error: No balloon device found." },
		{ "GET", "/balloon/foo", "", "Unrecognized GET request path `foo`." },
		{ "PUT", "/network-interfaces/a-b", "{}",
		  "API Resource IDs can only contain alphanumeric characters and underscores." },
	};

	(void)state;
	check(rows, ARRAY_SIZE(rows));
}

static void marks_deprecated_fields(void **state)
{
	(void)state;
	fault("PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":1}");
	assert_false(reply.deprecated);
	fault("PUT", "/machine-config",
	      "{\"vcpu_count\":1,\"mem_size_mib\":1,\"cpu_template\":\"None\"}");
	assert_true(reply.deprecated);
	assert_string_equal(fault("PATCH", "/machine-config", "{\"cpu_template\":\"T2\"}"), "");
	assert_true(reply.deprecated);
	fault("PATCH", "/machine-config", "{\"mem_size_mib\":2}");
	assert_false(reply.deprecated);
	assert_non_null(strstr(ask("GET", "/machine-config", ""), "\"cpu_template\":\"T2\""));
	fault("PUT", "/machine-config",
	      "{\"vcpu_count\":0,\"mem_size_mib\":1,\"cpu_template\":\"T2\"}");
	assert_int_equal(reply.status, 400);
	assert_true(reply.deprecated);
}

static void a_patch_changes_what_it_names(void **state)
{
	(void)state;
	fault("PUT", "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64,\"smt\":true}");
	assert_string_equal(fault("PATCH", "/machine-config", "{\"mem_size_mib\":32}"), "");
	assert_string_equal(ask("GET", "/machine-config", ""),
			    "{\"vcpu_count\":2,\"mem_size_mib\":32,\"smt\":true,"
			    "\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
	assert_true(*fault("PATCH", "/machine-config", "{\"mem_size_mib\":16,\"vcpu_count\":3}"));
	assert_string_equal(ask("GET", "/machine-config", ""),
			    "{\"vcpu_count\":2,\"mem_size_mib\":32,\"smt\":true,"
			    "\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
}

static void a_long_fault_is_still_json(void **state)
{
	char body[3000];

	(void)state;
	memset(body, 0xc3, sizeof body);
	for (size_t i = 3; i < sizeof body; i += 2)
		body[i] = (char)0xa9;
	memcpy(body, "{\"", 2);
	memcpy(body + sizeof body - 5, "x\":1}", 5);
	body[sizeof body - 1] = '\0';
	fault("PUT", "/entropy", body);
	assert_int_equal(reply.status, 400);
}

/* ---- the tables, for others ----------------------------------------------------------------- */

static void print_fields(const char *indent, const struct json_object *object)
{
	static const char *const type[] = { "boolean", "integer", "integer", "integer", "integer",
					    "integer", "string",  "string",  "object",
					    "array" };
	static_assert(ARRAY_SIZE(type) == JSON_TYPES, "a word for each");

	for (unsigned i = 0; i < object->n; i++) {
		const struct json_field *f = &object->field[i];

		printf("%s%s %s %s", indent, f->name, type[f->type],
		       f->flags & JSON_REQUIRED ? "required" : "optional");
		for (unsigned k = 0; f->names && k < f->names->n; k++)
			printf(" %s", f->names->name[k].name);
		printf("\n");
		if (f->type == JSON_OBJECT) {
			char deeper[16];

			snprintf(deeper, sizeof deeper, "%s  ", indent);
			print_fields(deeper, f->object);
		}
	}
}

static int print_tables(void)
{
	struct routes_row row;

	for (unsigned i = 0; routes_row(i, &row); i++) {
		printf("%s %s %s\n", verb_name[row.verb], row.path,
		       row.supported ? "supported" : "planned");
		if (row.body)
			print_fields("  ", row.body);
	}
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, gone)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(tells_about_itself),
		TEST(says_which_request_it_does_not_know),
		TEST(looks_at_ids_before_bodies),
		TEST(words_bad_bodies_as_clients_know_them),
		TEST(keeps_to_the_order_of_things),
		TEST(marks_deprecated_fields),
		TEST(a_patch_changes_what_it_names),
		TEST(a_long_fault_is_still_json),
	};
	struct log_config quiet = { .level = LOG_OFF };

	if (argc > 1 && strcmp(argv[1], "--print") == 0)
		return print_tables();
	if (log_configure(&quiet, &err) < 0)
		return 1;
	return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
