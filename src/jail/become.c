/*
 * become: the last steps, in the process that will be the monitor. Privilege goes in the one order
 * in which each part can still be given up: bounding set and secure bits (need capabilities),
 * groups before the user (need root), then the user, then what is left of the capabilities. It is
 * looked at afterwards, because a step that failed silently would be root.
 */
#include "jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

/* Newer than the headers of some hosts that build this. */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE		 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static int limit(const struct step *s, struct err *err)
{
	struct rlimit l = { s->number, s->number };

	if (setrlimit((int)s->resource, &l) < 0)
		return fail(err, -errno, "--resource-limit: %s=%llu: " OS_ERR, s->name,
			    (unsigned long long)s->number, OS_ERR_ARGS(errno));
	return 0;
}

/* Nothing is gained back by executing a program, by becoming root, or through a user namespace. */
static int drop_bounds(struct err *err)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return fail(err, -errno, "capability %lu cannot be dropped: " OS_ERR, cap,
				    OS_ERR_ARGS(errno));
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return fail(err, -errno, "ambient capabilities: " OS_ERR, OS_ERR_ARGS(errno));
	if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
					     SECBIT_NO_SETUID_FIXUP_LOCKED |
					     SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
					     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) < 0)
		return fail(err, -errno, "secure bits: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

static int become_user(const struct args *a, struct err *err)
{
	/* A user namespace whose maker is not root has no say in groups. */
	if (!a->userns && setgroups(0, NULL) < 0)
		return fail(err, -errno, "--gid: groups cannot be given up: " OS_ERR,
			    OS_ERR_ARGS(errno));
	if (setresgid(a->gid, a->gid, a->gid) < 0)
		return fail(err, -errno, "--gid: %u: " OS_ERR, a->gid, OS_ERR_ARGS(errno));
	if (setresuid(a->uid, a->uid, a->uid) < 0)
		return fail(err, -errno, "--uid: %u: " OS_ERR, a->uid, OS_ERR_ARGS(errno));
	return 0;
}

static int drop_capabilities(struct err *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } }, now[2];

	if (syscall(SYS_capset, &head, none) < 0 || syscall(SYS_capget, &head, now) < 0)
		return fail(err, -errno, "capabilities: " OS_ERR, OS_ERR_ARGS(errno));
	for (int i = 0; i < 2; i++)
		if (now[i].effective || now[i].permitted || now[i].inheritable)
			return fail(err, -EPERM, "capabilities are left");
	return 0;
}

static int verify(const struct args *a, struct err *err)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	if (getresuid(&r, &e, &s) < 0 || r != a->uid || e != a->uid || s != a->uid)
		return fail(err, -EPERM, "--uid: the user is another one than asked for");
	if (getresgid(&rg, &eg, &sg) < 0 || rg != a->gid || eg != a->gid || sg != a->gid)
		return fail(err, -EPERM, "--gid: the group is another one than asked for");
	if (!a->userns && getgroups(0, NULL) != 0)
		return fail(err, -EPERM, "--gid: groups are left");
	if (a->uid != 0 && setresuid(0, 0, 0) == 0)
		return fail(err, -EPERM, "--uid: root can be had back");
	return 0;
}

static int drop(struct jail *jail, struct err *err)
{
	const struct args *a = jail->args;
	struct pollfd report = { .fd = jail->report };
	int r = drop_bounds(err);

	/* The threads of one core are not shared between machines, where the kernel can see to
	 * that. */
	if (!a->share_core)
		(void)prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0,
			    PR_SCHED_CORE_SCOPE_THREAD_GROUP, 0);
	if (!r)
		r = become_user(a, err);
	if (!r)
		r = drop_capabilities(err);
	if (!r)
		r = verify(a, err);
	if (r)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(err, -errno, "no_new_privs: " OS_ERR, OS_ERR_ARGS(errno));
	/* Kernels since 6.3: memory that was not executable never becomes so. */
	(void)prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
	/* The change of user has cleared it, so it comes after: a supervisor that dies takes us
	 * along. */
	if (a->wait && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return fail(err, -errno, "--wait: " OS_ERR, OS_ERR_ARGS(errno));
	/* One that has died already has closed its end. */
	if (a->wait && poll(&report, 1, 0) > 0 && (report.revents & POLLERR))
		_exit(1);
	return 0;
}

static u64 cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (u64)t.tv_sec * 1000000 + (u64)t.tv_nsec / 1000;
}

/*
 * The monitor is executed by the descriptor of its mount: nobody can have put anything else under
 * its name. The environment is empty; every descriptor from 3 on closes by itself.
 */
static int execute(struct jail *jail, const struct step *s, struct err *err)
{
	enum { FIXED = 9 };
	const struct args *a = jail->args;
	char path[256], start[24], start_cpu[24], parent_cpu[24];
	char *const empty[] = { NULL };
	const char *fixed[FIXED] = { path,	"--id",
				     a->id,	"--start-time-us",
				     start,	"--start-time-cpu-us",
				     start_cpu, "--parent-cpu-time-us",
				     parent_cpu };
	sigset_t none_blocked;
	const char **argv = calloc(FIXED + 1 + (size_t)a->extras, sizeof *argv);

	if (!argv)
		return fail(err, -ENOMEM, "no memory");
	snprintf(path, sizeof path, "/%s", s->name);
	snprintf(start, sizeof start, "%llu", (unsigned long long)jail->start_us);
	snprintf(start_cpu, sizeof start_cpu, "%llu", (unsigned long long)jail->start_cpu_us);
	snprintf(parent_cpu, sizeof parent_cpu, "%llu", (unsigned long long)cpu_us());
	memcpy(argv, fixed, sizeof fixed);
	for (int i = 0; i < a->extras; i++)
		argv[FIXED + i] = a->extra[i];
	umask(jail->umask);
	sigemptyset(&none_blocked);
	sigprocmask(SIG_SETMASK, &none_blocked, NULL);
	syscall(SYS_execveat, jail->bind[0].tree, "", argv, empty, AT_EMPTY_PATH);
	free(argv);
	return fail(err, -errno, "--exec-file: cannot be executed in the jail: " OS_ERR,
		    OS_ERR_ARGS(errno));
}

int become_step(struct jail *jail, const struct step *s, struct err *err)
{
	switch (s->kind) {
	case STEP_LIMIT:
		return limit(s, err);
	case STEP_DROP:
		return drop(jail, err);
	default:
		return execute(jail, s, err);
	}
}
