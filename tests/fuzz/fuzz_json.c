/*
 * fuzz_json: any bytes as the body of any request. What is refused must leave the struct alone and
 * say why in one line; what is accepted must come out as JSON that is accepted again and means the
 * same.
 */
#include "src/vmm/config.h"
#include "src/vmm/json.h"
#include "src/vmm/schema.h"

#include <stdlib.h>

#define check(x) ((x) ? (void)0 : abort())

union body {
	struct machine_config machine;
	struct boot_config boot;
	struct drive_config drive;
	struct drive_patch drive_patch;
	struct entropy_config entropy;
	struct serial_config serial;
	struct log_config logger;
	struct net_request net;
	struct net_patch net_patch;
	struct vsock_request vsock;
	struct balloon_request balloon;
	struct schema_balloon_size balloon_size;
	struct schema_balloon_interval balloon_interval;
	struct schema_balloon_hint balloon_hint;
	struct schema_actions actions;
	struct schema_vm vm;
};

static const struct json_object *const tables[] = {
	&schema_machine, &schema_machine_patch, &schema_boot,
	&schema_drive,	 &schema_drive_patch,	&schema_entropy,
	&schema_serial,	 &schema_logger,	&schema_actions,
	&schema_vm,	 &schema_net,		&schema_net_patch,
	&schema_vsock,	 &schema_balloon,	&schema_balloon_size,
	&schema_balloon_interval, &schema_balloon_hint,
};

static struct json doc;
static char text[1 << 20];

static void one_line(const struct err *err)
{
	check(err->msg[0] && !strchr(err->msg, '\n'));
}

/* Encoding is one to one, but that an empty text may come back as null. */
static void round_trip(const struct json_object *table, const union body *body)
{
	static union body again;
	static char second[sizeof text];
	struct json_out out = { .buf = text, .size = sizeof text };
	struct json_out out2 = { .buf = second, .size = sizeof second };
	struct err err;

	json_put_object(&out, table, body);
	check(!out.overflow && json_check(text, out.len, &err) == 0);
	memset(&again, 0, sizeof again);
	check(json_parse(&doc, text, out.len, &err) == 0);
	if (json_decode(&doc, JSON_ROOT, table, &again, &err) < 0)
		abort();
	json_put_object(&out2, table, &again);
	check(out2.len == out.len && memcmp(text, second, out.len) == 0);
}

static void try_table(const struct json_object *table, const char *json, size_t len)
{
	static union body body, before;
	struct err err;
	int r;

	check(json_parse(&doc, json, len, &err) == 0);
	memset(&body, 0, sizeof body);
	memset(&before, 0, sizeof before);
	r = json_decode(&doc, JSON_ROOT, table, &body, &err);
	if (r < 0) {
		one_line(&err);
		check(memcmp(&body, &before, sizeof body) == 0);
		return;
	}
	check((unsigned)r <= table->n);
	/* A PATCH body may lack what printing shows, so only whole objects come back. */
	if (table != &schema_machine_patch && table != &schema_logger)
		round_trip(table, &body);
	if (table == &schema_machine || table == &schema_machine_patch) {
		static struct config cfg;

		config_init(&cfg);
		r = config_put_machine(&cfg, &body.machine, &err);
		check(r < 0 ? cfg.machine.vcpu_count == 1
			    : cfg.machine.vcpu_count == body.machine.vcpu_count);
	}
	if (table == &schema_balloon) {
		static struct config cfg;

		config_init(&cfg);
		r = config_put_balloon(&cfg, &body.balloon, &err);
		check(r < 0 ? !cfg.balloon.present
			    : cfg.balloon.balloon.amount_mib <= cfg.machine.mem_mib);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static bool started;
	struct log_config quiet = { .level = LOG_OFF };
	struct json_out out = { .buf = text, .size = sizeof text };
	char *copy = malloc(size + 1); /* exact: the sanitizer sees every overrun */
	struct err err;

	if (!started && log_configure(&quiet, &err) < 0)
		abort();
	started = true;
	memcpy(copy, data, size);
	copy[size] = '\0';
	json_put_string(&out, copy);
	check(out.overflow || json_check(text, out.len, &err) == 0);
	copy = realloc(copy, size ? size : 1);
	if (json_parse(&doc, copy, size, &err) < 0) {
		one_line(&err);
	} else {
		check(doc.n > 0 && doc.n <= JSON_TOKENS_MAX);
		for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
			try_table(tables[i], copy, size);
	}
	free(copy);
	return 0;
}
