/* args: see args.h. */
#include "args.h"

#include <ctype.h>
#include <stdio.h>

struct option {
	const char *name, *argument, *help;
	int (*set)(struct args *, const char *value, struct err *);
	bool required, repeats;
};

/* Digits only: no sign, no space, no other base; what does not fit is refused. */
static int number(u64 *to, const char *name, const char *text, u64 max, struct err *err)
{
	u64 n = 0;

	if (!*text)
		return fail(err, -EINVAL, "--%s: an empty value is not a number", name);
	for (const char *c = text; *c; c++) {
		if (*c < '0' || *c > '9')
			return fail(err, -EINVAL, "--%s: '%s' is not a number", name, text);
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (u64)(*c - '0'), &n) || n > max)
			return fail(err, -EINVAL, "--%s: %s is more than %llu", name, text,
				    (unsigned long long)max);
	}
	*to = n;
	return 0;
}

/* 2^32-1 would mean "leave it as it is" to the kernel, that is: root. */
static int user_number(u32 *to, const char *name, const char *text, struct err *err)
{
	u64 n;
	int r = number(&n, name, text, UINT32_MAX - 1, err);

	if (!r)
		*to = (u32)n;
	return r;
}

static int set_id(struct args *a, const char *value, struct err *err)
{
	size_t len = strlen(value);

	if (len < 1 || len > ARGS_ID_MAX)
		return fail(
			err, -EINVAL,
			"--id: Invalid instance ID: Invalid len (%zu);  the length must be between "
			"1 and %d",
			len, ARGS_ID_MAX);
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)value[i]) && value[i] != '-')
			return fail(err, -EINVAL,
				    "--id: Invalid instance ID: Invalid char (%c) at position %zu",
				    isprint((unsigned char)value[i]) ? value[i] : '?', i);
	a->id = value;
	return 0;
}

static int set_exec_file(struct args *a, const char *value, struct err *err)
{
	const char *slash = strrchr(value, '/');
	const char *name = slash ? slash + 1 : value;

	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return fail(err, -EINVAL, "--exec-file: %s is not a file", value);
	if (strlen(name) > 200)
		return fail(err, -EINVAL, "--exec-file: the file name is too long");
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("-_.+", *c))
			return fail(err, -EINVAL,
				    "--exec-file: the file name '%s' would make an odd directory",
				    name);
	a->exec_file = value;
	a->exec_name = name;
	return 0;
}

static int set_uid(struct args *a, const char *value, struct err *err)
{
	return user_number(&a->uid, "uid", value, err);
}

static int set_gid(struct args *a, const char *value, struct err *err)
{
	return user_number(&a->gid, "gid", value, err);
}

static int set_base(struct args *a, const char *value, struct err *err)
{
	(void)err;
	a->base = value;
	return 0;
}

static int set_netns(struct args *a, const char *value, struct err *err)
{
	(void)err;
	a->netns = value;
	return 0;
}

static int set_cgroup_version(struct args *a, const char *value, struct err *err)
{
	if (strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
		return fail(err, -EINVAL, "--cgroup-version: '%s' is neither 1 nor 2", value);
	a->cgroup_version = (u32)(value[0] - '0');
	return 0;
}

/* Relative, and only downwards: no component is empty, "." or "..". */
static int set_parent_cgroup(struct args *a, const char *value, struct err *err)
{
	const char *at = value;
	unsigned depth = 0;

	if (strlen(value) > 512)
		return fail(err, -EINVAL, "--parent-cgroup: the path is too long");
	for (;;) {
		size_t n = strcspn(at, "/");

		if (n == 0 || (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
			return fail(err, -EINVAL,
				    "--parent-cgroup: '%s' must be relative, without '.', '..' or "
				    "empty "
				    "components",
				    value);
		for (size_t i = 0; i < n; i++)
			if (iscntrl((unsigned char)at[i]))
				return fail(err, -EINVAL, "--parent-cgroup: a control character");
		if (++depth > ARGS_CGROUP_DEPTH_MAX)
			return fail(err, -EINVAL, "--parent-cgroup: more than %d levels",
				    ARGS_CGROUP_DEPTH_MAX);
		if (!at[n])
			break;
		at += n + 1;
	}
	a->parent_cgroup = value;
	return 0;
}

static int cgroup_file(struct args_cgroup *g, const char *text, size_t len, struct err *err)
{
	const char *dot = memchr(text, '.', len);
	size_t head = dot ? (size_t)(dot - text) : 0;

	if (len >= sizeof g->file || head >= sizeof g->controller)
		return fail(err, -EINVAL, "--cgroup: the file name is too long");
	if (head == 0 || head + 1 == len)
		return fail(err, -EINVAL, "--cgroup: '%.*s' is not CONTROLLER.FILE", (int)len,
			    text);
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._", text[i]))
			return fail(err, -EINVAL,
				    "--cgroup: '%.*s' is not the name of a cgroup file", (int)len,
				    text);
	memcpy(g->file, text, len);
	g->file[len] = 0;
	memcpy(g->controller, text, head);
	g->controller[head] = 0;
	return 0;
}

static int set_cgroup(struct args *a, const char *value, struct err *err)
{
	const char *equals = strchr(value, '=');
	struct args_cgroup *g;
	int r;

	if (a->cgroups == ARGS_CGROUPS_MAX)
		return fail(err, -EINVAL, "--cgroup: more than %d of them", ARGS_CGROUPS_MAX);
	if (!equals || !equals[1])
		return fail(err, -EINVAL, "--cgroup: '%.200s' is not FILE=VALUE", value);
	if (strlen(equals + 1) > ARGS_CGROUP_TEXT_MAX)
		return fail(err, -EINVAL, "--cgroup: the value is too long");
	for (const char *c = equals + 1; *c; c++)
		if (iscntrl((unsigned char)*c))
			return fail(err, -EINVAL, "--cgroup: a control character in the value");
	g = &a->cgroup[a->cgroups];
	r = cgroup_file(g, value, (size_t)(equals - value), err);
	if (r)
		return r;
	for (unsigned i = 0; i < a->cgroups; i++)
		if (!strcmp(a->cgroup[i].file, g->file))
			return fail(err, -EINVAL, "--cgroup: %s was given twice", g->file);
	g->value = equals + 1;
	a->cgroups++;
	return 0;
}

static int set_limit(struct args *a, const char *value, struct err *err)
{
	if (!strncmp(value, "fsize=", 6))
		return number(&a->fsize, "resource-limit", value + 6, INT64_MAX, err);
	if (!strncmp(value, "no-file=", 8))
		return number(&a->no_file, "resource-limit", value + 8, INT32_MAX, err);
	return fail(err, -EINVAL,
		    "--resource-limit: '%.200s' is neither fsize=BYTES nor no-file=NUMBER", value);
}

#define FLAG(function, field)                                                                      \
	static int function(struct args *a, const char *value, struct err *err)                    \
	{                                                                                          \
		(void)value, (void)err;                                                            \
		a->field = true;                                                                   \
		return 0;                                                                          \
	}
FLAG(set_daemonize, daemonize)
FLAG(set_new_pid_ns, new_pid_ns)
FLAG(set_userns, userns)
FLAG(set_new_net_ns, new_net_ns)
FLAG(set_wait, wait)
FLAG(set_dry_run, dry_run)
FLAG(set_share_core, share_core)

static const struct option table[] = {
	{ "id", "ID", "name of the microVM: letters, digits, '-', at most 64", set_id, true,
	  false },
	{ "exec-file", "PATH", "the monitor", set_exec_file, true, false },
	{ "uid", "UID", "user that the monitor becomes", set_uid, true, false },
	{ "gid", "GID", "group that the monitor becomes", set_gid, true, false },
	{ "chroot-base-dir", "DIR", "where jails are (default /srv/jailer)", set_base, false,
	  false },
	{ "netns", "PATH", "network namespace to enter", set_netns, false, false },
	{ "cgroup", "FILE=VALUE", "a cgroup file to write; may be repeated", set_cgroup, false,
	  true },
	{ "cgroup-version", "1|2", "which cgroups (default 1)", set_cgroup_version, false, false },
	{ "parent-cgroup", "PATH", "below which the cgroup is (default: the monitor's file name)",
	  set_parent_cgroup, false, false },
	{ "resource-limit", "NAME=N", "fsize=BYTES or no-file=NUMBER (default no-file=2048)",
	  set_limit, false, true },
	{ "daemonize", NULL, "in the background: own session, standard files on /dev/null",
	  set_daemonize, false, false },
	{ "new-pid-ns", NULL, "process namespace of its own; the jailer ends", set_new_pid_ns,
	  false, false },
	{ "new-net-ns", NULL, "an empty network namespace of its own", set_new_net_ns, false,
	  false },
	{ "wait", NULL, "stay, end with the monitor's status (128 + signal), remove the cgroups",
	  set_wait, false, false },
	{ "userns", NULL, "without root: in a user namespace", set_userns, false, false },
	{ "share-core", NULL, "let threads of other machines run beside this one's on one core",
	  set_share_core, false, false },
	{ "dry-run", NULL, "print the steps and do nothing", set_dry_run, false, false },
	{ "version", NULL, "print the version and exit", NULL, false, false },
	{ "help", NULL, "print this and exit", NULL, false, false },
};

static const struct option *find(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
			return &table[i];
	return NULL;
}

static bool wants_help_or_version(struct args *a, int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		a->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
		a->version |= strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0;
	}
	return a->help || a->version;
}

/* One option at argv[*i], with its value; advances *i past what it used. */
static int parse_one(struct args *a, bool *seen, int argc, char **argv, int *i, struct err *err)
{
	const char *word = argv[(*i)++], *equals = strchr(word, '='), *value = NULL;
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct option *o =
		len > 2 && !strncmp(word, "--", 2) ? find(word + 2, len - 2) : NULL;

	if (!o)
		return fail(err, -EINVAL, "found argument '%.200s' which is not an option", word);
	if (seen[o - table] && !o->repeats)
		return fail(err, -EINVAL, "--%s: given twice", o->name);
	seen[o - table] = true;
	if (!o->argument)
		return equals ? fail(err, -EINVAL, "--%s: takes no value", o->name)
			      : o->set(a, "", err);
	if (equals)
		value = equals + 1;
	else if (*i < argc && strncmp(argv[*i], "--", 2) != 0)
		value = argv[(*i)++];
	if (!value)
		return fail(err, -EINVAL, "--%s: needs a value, but there is none", o->name);
	/* An empty id has a text of its own. */
	if (!*value && o->set != set_id)
		return fail(err, -EINVAL, "--%s: the value is empty", o->name);
	return o->set(a, value, err);
}

static int check_together(const struct args *a, const bool *seen, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].required && !seen[i])
			return fail(err, -EINVAL, "--%s: is required", table[i].name);
	if (a->wait && a->daemonize)
		return fail(err, -EINVAL, "--wait: not together with --daemonize");
	if (a->netns && a->new_net_ns)
		return fail(err, -EINVAL, "--new-net-ns: not together with --netns");
	return 0;
}

int args_parse(struct args *a, int argc, char **argv, struct err *err)
{
	bool seen[ARRAY_SIZE(table)] = { false };
	int i = 1, r = 0;

	*a = (struct args){
		.base = "/srv/jailer",
		.cgroup_version = 1,
		.no_file = 2048,
		.fsize = ~0ull,
	};
	if (argc < 1)
		return fail(err, -EINVAL, "no arguments at all");
	if (wants_help_or_version(a, argc, argv))
		return 0;
	while (i < argc && !r) {
		if (strcmp(argv[i], "--") == 0) {
			a->extra = argv + i + 1;
			a->extras = argc - i - 1;
			break;
		}
		r = parse_one(a, seen, argc, argv, &i, err);
	}
	if (!r)
		r = check_together(a, seen, err);
	if (!r && !a->parent_cgroup)
		a->parent_cgroup = a->exec_name;
	return r;
}

void args_print_help(const char *program)
{
	printf("usage: %s --id ID --exec-file PATH --uid UID --gid GID [option]... [-- "
	       "argument...]\n",
	       program);
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];
		int width = 26 - (int)strlen(o->name);

		printf("  --%s %-*s %s\n", o->name, MAX(width, 1), o->argument ? o->argument : "",
		       o->help);
	}
}
