/* plan: see plan.h. */
#include "plan.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

static struct step *add(struct plan *p, struct step step)
{
	assert(p->steps < PLAN_STEPS_MAX);
	p->step[p->steps] = step;
	return &p->step[p->steps++];
}

static void add_dir(struct plan *p, enum place at, const char *name, enum place place)
{
	add(p, (struct step){ .kind = STEP_MAKE_DIR,
			      .at = at,
			      .name = name,
			      .place = place,
			      .may_exist = true });
}

static void add_node(struct plan *p, enum place at, const char *name, u32 major, u32 minor,
		     bool optional)
{
	add(p, (struct step){ .kind = STEP_MAKE_NODE,
			      .at = at,
			      .name = name,
			      .major = major,
			      .minor = minor,
			      .optional = optional });
}

/* v2 has one hierarchy; in v1 each controller has its own. */
static u32 group_of(struct plan *p, const struct args_cgroup *g)
{
	for (unsigned i = 0; i < p->steps; i++) {
		const struct step *s = &p->step[i];

		if (s->kind == STEP_FIND_CGROUP &&
		    (p->args->cgroup_version == 2 || !strcmp(s->name, g->controller)))
			return s->group;
	}
	return p->groups;
}

static void find_cgroups(struct plan *p)
{
	const struct args *a = p->args;

	snprintf(p->cgroup_path, sizeof p->cgroup_path, "%s/%s", a->parent_cgroup, a->id);
	for (unsigned i = 0; i < a->cgroups; i++) {
		u32 group = group_of(p, &a->cgroup[i]);

		if (group == p->groups)
			add(p, (struct step){ .kind = STEP_FIND_CGROUP,
					      .group = p->groups++,
					      .name = a->cgroup[i].controller,
					      .path = p->cgroup_path });
	}
	if (a->cgroups == 0 && a->cgroup_version == 2) {
		p->move_to_parent = true;
		add(p, (struct step){ .kind = STEP_FIND_CGROUP,
				      .group = p->groups++,
				      .name = "",
				      .path = a->parent_cgroup,
				      .may_exist = true });
	}
}

static void make_cgroups(struct plan *p)
{
	const struct args *a = p->args;

	if (p->move_to_parent)
		return;
	for (u32 g = 0; g < p->groups; g++)
		add(p,
		    (struct step){ .kind = STEP_MAKE_CGROUP, .group = g, .path = p->cgroup_path });
	for (unsigned i = 0; i < a->cgroups; i++)
		add(p, (struct step){ .kind = STEP_WRITE_CGROUP,
				      .group = group_of(p, &a->cgroup[i]),
				      .name = a->cgroup[i].file,
				      .value = a->cgroup[i].value });
}

/* The exclusive file comes first of all that is the jail's own: of two jailers, one makes it. */
static void make_files(struct plan *p, int userfaultfd_minor)
{
	const struct args *a = p->args;

	add_dir(p, PLACE_BASE, a->exec_name, PLACE_EXEC);
	add_dir(p, PLACE_EXEC, a->id, PLACE_ID);
	add_dir(p, PLACE_ID, "root", PLACE_ROOT);
	add(p, (struct step){ .kind = STEP_MAKE_EXEC, .at = PLACE_ROOT, .name = a->exec_name });
	add_dir(p, PLACE_ROOT, "dev", PLACE_DEV);
	add_dir(p, PLACE_DEV, "net", PLACE_NET);
	add_dir(p, PLACE_ROOT, "run", PLACE_RUN);
	add_node(p, PLACE_NET, "tun", 10, 200, a->userns);
	add_node(p, PLACE_DEV, "kvm", 10, 232, false);
	add_node(p, PLACE_DEV, "urandom", 1, 9, true);
	if (userfaultfd_minor >= 0)
		add_node(p, PLACE_DEV, "userfaultfd", 10, (u32)userfaultfd_minor, a->userns);
}

static void limits(struct plan *p)
{
	const struct args *a = p->args;

	add(p, (struct step){ .kind = STEP_LIMIT,
			      .name = "no-file",
			      .resource = RLIMIT_NOFILE,
			      .number = a->no_file });
	if (a->fsize != ~0ull)
		add(p, (struct step){ .kind = STEP_LIMIT,
				      .name = "fsize",
				      .resource = RLIMIT_FSIZE,
				      .number = a->fsize });
	add(p, (struct step){ .kind = STEP_LIMIT, .name = "core", .resource = RLIMIT_CORE });
}

void plan_make(struct plan *p, const struct args *a, int userfaultfd_minor)
{
	static const enum place given[] = { PLACE_NET, PLACE_DEV, PLACE_RUN, PLACE_ROOT };
	u64 flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;

	*p = (struct plan){ .args = a };
	snprintf(p->pid_name, sizeof p->pid_name, "%s.pid", a->exec_name);
	flags |= a->userns ? CLONE_NEWUSER : 0;
	flags |= a->new_net_ns ? CLONE_NEWNET : 0;
	add(p, (struct step){ .kind = STEP_NAMESPACES, .number = flags });
	add(p, (struct step){ .kind = STEP_OPEN_EXEC, .path = a->exec_file });
	add(p, (struct step){ .kind = STEP_OPEN_BASE, .path = a->base, .place = PLACE_BASE });
	if (a->netns)
		add(p, (struct step){ .kind = STEP_OPEN_NETNS, .path = a->netns });
	find_cgroups(p);
	add(p, (struct step){ .kind = STEP_CHECK_FREE });
	make_files(p, userfaultfd_minor);
	make_cgroups(p);
	if (a->netns)
		add(p, (struct step){ .kind = STEP_ENTER_NETNS, .path = a->netns });
	for (unsigned i = 0; i < ARRAY_SIZE(given); i++)
		add(p, (struct step){ .kind = STEP_GIVE_DIR, .place = given[i] });
	add(p, (struct step){ .kind = STEP_ENTER_ROOT });
	add(p, (struct step){ .kind = STEP_SPAWN, .name = p->pid_name });
	limits(p);
	add(p, (struct step){ .kind = STEP_JOIN_CGROUPS });
	add(p, (struct step){ .kind = STEP_DROP });
	add(p, (struct step){ .kind = STEP_EXEC, .name = a->exec_name });
}

/* ---- printing -------------------------------------------------------------------------------- */

struct text {
	char *at;
	size_t size, used;
};

static void PRINTF(2, 3) say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at + t->used, t->size - t->used, fmt, ap);
	va_end(ap);
	t->used = MIN(t->used + (size_t)MAX(n, 0), t->size - 1);
}

static const char *const place_name[PLACES] = {
	[PLACE_NONE] = "",
	[PLACE_BASE] = "<base>",
	[PLACE_EXEC] = "<base>/<exec>",
	[PLACE_ID] = "<base>/<exec>/<id>",
	[PLACE_ROOT] = "<root>",
	[PLACE_DEV] = "<root>/dev",
	[PLACE_NET] = "<root>/dev/net",
	[PLACE_RUN] = "<root>/run",
};

static void say_namespaces(struct text *t, u64 flags)
{
	static const struct {
		u64 flag;
		const char *name;
	} names[] = {
		{ CLONE_NEWUSER, "user" }, { CLONE_NEWNS, "mount" }, { CLONE_NEWIPC, "ipc" },
		{ CLONE_NEWUTS, "uts" },   { CLONE_NEWNET, "net" },
	};

	say(t, "new namespaces:");
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & names[i].flag)
			say(t, " %s", names[i].name);
}

static void say_spawn(struct text *t, const struct plan *p, const struct step *s)
{
	const struct args *a = p->args;

	if (a->daemonize)
		say(t, "fork, setsid, fork, standard files on /dev/null; ");
	else if (a->new_pid_ns || a->wait)
		say(t, "fork; ");
	say(t, "%swrite %s", a->new_pid_ns ? "new namespaces: pid; " : "", s->name);
}

static void say_make(struct text *t, const struct plan *p, const struct step *s)
{
	const struct args *a = p->args;
	const char *at = place_name[s->at];

	switch (s->kind) {
	case STEP_MAKE_DIR:
		say(t, "mkdir %s/%s %s, unless there", at, s->name,
		    s->place < PLACE_ROOT ? "0755" : "0700");
		break;
	case STEP_MAKE_EXEC:
		say(t, "create %s/%s 0755 %u:%u", at, s->name, a->uid, a->gid);
		break;
	default:
		say(t, "%s %s/%s c %u:%u 0600 %u:%u%s", a->userns ? "bind" : "mknod", at, s->name,
		    s->major, s->minor, a->uid, a->gid, s->optional ? " (may fail)" : "");
		break;
	}
}

static void say_cgroup(struct text *t, const struct plan *p, const struct step *s)
{
	switch (s->kind) {
	case STEP_FIND_CGROUP:
		say(t, "find cgroup v%u %s%s%s", p->args->cgroup_version, s->name,
		    *s->name ? ": " : "", s->path);
		break;
	case STEP_MAKE_CGROUP:
		say(t, "mkdir cgroup #%u %s", s->group, s->path);
		break;
	case STEP_WRITE_CGROUP:
		say(t, "write cgroup #%u %s = %s", s->group, s->name, s->value);
		break;
	default:
		say(t, "join %u cgroup%s; new namespaces: cgroup", p->groups,
		    p->groups == 1 ? "" : "s");
		break;
	}
}

static void say_step(struct text *t, const struct plan *p, const struct step *s)
{
	const struct args *a = p->args;

	switch (s->kind) {
	case STEP_NAMESPACES:
		say_namespaces(t, s->number);
		break;
	case STEP_OPEN_EXEC:
		say(t, "open monitor %s", s->path);
		break;
	case STEP_OPEN_BASE:
		say(t, "open <base> = %s", s->path);
		break;
	case STEP_OPEN_NETNS:
		say(t, "open network namespace %s", s->path);
		break;
	case STEP_CHECK_FREE:
		say(t, "check that nothing of what follows is there");
		break;
	case STEP_MAKE_DIR:
	case STEP_MAKE_EXEC:
	case STEP_MAKE_NODE:
		say_make(t, p, s);
		break;
	case STEP_FIND_CGROUP:
	case STEP_MAKE_CGROUP:
	case STEP_WRITE_CGROUP:
	case STEP_JOIN_CGROUPS:
		say_cgroup(t, p, s);
		break;
	case STEP_ENTER_NETNS:
		say(t, "enter network namespace %s", s->path);
		break;
	case STEP_LIMIT:
		say(t, "limit %s = %llu", s->name, (unsigned long long)s->number);
		break;
	case STEP_GIVE_DIR:
		say(t, "give %s 0700 %u:%u", place_name[s->place], a->uid, a->gid);
		break;
	case STEP_ENTER_ROOT:
		say(t, "mount <root> nosuid,noexec; mount monitor on <root>/%s ro; pivot_root",
		    a->exec_name);
		break;
	case STEP_SPAWN:
		say_spawn(t, p, s);
		break;
	case STEP_DROP:
		say(t, "no groups, gid %u, uid %u, no capabilities, no_new_privs%s", a->gid, a->uid,
		    a->share_core ? "" : ", a core of its own");
		break;
	case STEP_EXEC:
		say(t, "exec /%s --id %s", s->name, a->id);
		for (int i = 0; i < a->extras; i++)
			say(t, " %s", a->extra[i]);
		break;
	}
}

size_t plan_print(const struct plan *p, char *text, size_t size)
{
	struct text t = { .at = text, .size = size };

	for (unsigned i = 0; i < p->steps; i++) {
		say_step(&t, p, &p->step[i]);
		say(&t, "\n");
	}
	return t.used;
}
