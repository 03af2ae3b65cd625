/* options: see options.h. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>

enum kind { FLAG, TEXT, NUMBER, IGNORED_TEXT, LATER_FLAG, LATER_TEXT };

struct option {
	const char *name;
	enum kind kind;
	size_t at; /* offset in struct options */
	const char *argument, *help;
};

#define MAX_PAYLOAD MIB(64) /* each connection has a buffer of that size, for what is used of it */

#define AT(field) offsetof(struct options, field)

static const struct option table[] = {
	{ "api-sock", TEXT, AT(api_sock), "PATH", "API socket (default /run/firecracker.socket)" },
	{ "id", TEXT, AT(id), "ID", "name of this microVM (default anonymous-instance)" },
	{ "config-file", TEXT, AT(config_file), "PATH", "configure and start from a JSON file" },
	{ "no-api", FLAG, AT(no_api), NULL, "no API socket; needs --config-file" },
	{ "boot-timer", FLAG, AT(boot_timer), NULL, "log the time until the guest says it is up" },
	{ "log-path", TEXT, AT(log_path), "PATH", "file or FIFO for the log (default stdout)" },
	{ "level", TEXT, AT(level), "LEVEL", "Off, Error, Warn, Info (default), Debug or Trace" },
	{ "module", TEXT, AT(module), "PREFIX", "log only lines whose origin begins so" },
	{ "show-level", FLAG, AT(show_level), NULL, "put the level in each log line" },
	{ "show-log-origin", FLAG, AT(show_log_origin), NULL, "put file and line in each log line" },
	{ "http-api-max-payload-size", NUMBER, AT(max_payload), "BYTES",
	  "longest API request body (default 51200)" },
	{ "seccomp-filter", TEXT, AT(seccomp_filter), "PATH", "compiled filters in place of ours" },
	{ "no-seccomp", FLAG, AT(no_seccomp), NULL, "no system call filter" },
	{ "standby", FLAG, AT(standby), NULL, "make what any machine needs before the first request" },
	{ "start-time-us", IGNORED_TEXT, 0, "US", "set by the jailer" },
	{ "start-time-cpu-us", IGNORED_TEXT, 0, "US", "set by the jailer" },
	{ "parent-cpu-time-us", IGNORED_TEXT, 0, "US", "set by the jailer" },
	{ "metadata", LATER_TEXT, 0, "PATH", "not supported yet" },
	{ "metrics-path", LATER_TEXT, 0, "PATH", "not supported yet" },
	{ "mmds-size-limit", LATER_TEXT, 0, "BYTES", "not supported yet" },
	{ "enable-pci", LATER_FLAG, 0, NULL, "not supported yet" },
	{ "describe-snapshot", TEXT, AT(describe_snapshot), "PATH",
	  "print the version of a state file and exit" },
	{ "snapshot-version", FLAG, AT(snapshot_version), NULL,
	  "print the version of the state files written here and exit" },
	{ "version", FLAG, AT(version), NULL, "print the version and exit" },
	{ "help", FLAG, AT(help), NULL, "print this and exit" },
};

static bool takes_value(const struct option *o)
{
	return o->argument != NULL;
}

static const struct option *find(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
			return &table[i];
	return NULL;
}

static int set_number(u64 *to, const struct option *o, const char *value, struct err *err)
{
	char *end;

	errno = 0;
	*to = strtoull(value, &end, 10);
	if (errno || end == value || *end || value[0] < '0' || value[0] > '9')
		return fail(err, -EINVAL, "--%s: '%s' is not a number", o->name, value);
	return 0;
}

static int set(struct options *options, const struct option *o, const char *value, struct err *err)
{
	char *at = (char *)options + o->at;

	switch (o->kind) {
	case FLAG:
		*(bool *)(void *)at = true;
		return 0;
	case TEXT:
		*(const char **)(void *)at = value;
		return 0;
	case NUMBER:
		return set_number((u64 *)(void *)at, o, value, err);
	case IGNORED_TEXT:
		return 0;
	default:
		return fail(err, -ENOTSUP, "--%s is not supported yet", o->name);
	}
}

/* What must be known before anything else is complained about. */
static bool wants_help_or_version(struct options *options, int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		options->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
		options->version |= strcmp(argv[i], "--version") == 0;
	}
	return options->help || options->version;
}

/* One option at argv[*i], with its value; advances *i past what it used. */
static int parse_one(struct options *options, bool *seen, int argc, char **argv, int *i,
		     struct err *err)
{
	const char *word = argv[(*i)++], *value = NULL, *equals;
	const struct option *o;
	size_t len;

	if (strncmp(word, "--", 2) != 0)
		return fail(err, -EINVAL, "found argument '%s' which is not an option", word);
	equals = strchr(word, '=');
	len = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
	o = find(word + 2, len);
	if (!o)
		return fail(err, -EINVAL, "found argument '%s' which is not an option", word);
	if (seen[o - table])
		return fail(err, -EINVAL, "the argument '--%s' was given twice", o->name);
	seen[o - table] = true;
	if (!takes_value(o))
		return equals ? fail(err, -EINVAL, "the argument '--%s' takes no value", o->name) :
				set(options, o, "", err);
	if (equals)
		value = equals + 1;
	else if (*i < argc && strncmp(argv[*i], "--", 2) != 0)
		value = argv[(*i)++];
	if (!value || !*value)
		return fail(err, -EINVAL, "the argument '--%s' needs a value, but there is none",
			    o->name);
	return set(options, o, value, err);
}

int options_parse(struct options *options, int argc, char **argv, struct err *err)
{
	bool seen[ARRAY_SIZE(table)] = { false };
	int i = 1, r = 0;

	*options = (struct options){
		.api_sock = "/run/firecracker.socket",
		.id = "anonymous-instance",
		.level = "Info",
		.max_payload = 51200,
	};
	if (wants_help_or_version(options, argc, argv))
		return 0;
	while (i < argc && !r) {
		if (strcmp(argv[i], "--") == 0)
			break;
		r = parse_one(options, seen, argc, argv, &i, err);
	}
	if (!r && options->max_payload > MAX_PAYLOAD)
		return fail(err, -EINVAL, "--http-api-max-payload-size: at most %llu",
			    (unsigned long long)MAX_PAYLOAD);
	if (!r && options->no_api && !options->config_file)
		return fail(err, -EINVAL, "'--no-api' needs '--config-file'");
	return r;
}

void options_print_help(const char *program)
{
	printf("usage: %s [option]...\n", program);
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];
		int width = 30 - (int)strlen(o->name);

		printf("  --%s %-*s %s\n", o->name, MAX(width, 1), takes_value(o) ? o->argument : "",
		       o->help);
	}
}
