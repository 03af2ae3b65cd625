/* jail: see jail.h. */
#include "jail.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

static u64 clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (u64)t.tv_sec * 1000000 + (u64)t.tv_nsec / 1000;
}

/* 0, 1 and 2 are there and are no directories; nothing else is. */
static int settle_files(struct err *err)
{
	struct stat st;

	for (int fd = 0; fd <= 2; fd++) {
		if (fstat(fd, &st) < 0) {
			if (open("/dev/null", O_RDWR) != fd)
				return fail(err, -EBADF, "/dev/null cannot be opened");
		} else if (S_ISDIR(st.st_mode)) {
			return fail(err, -EISDIR, "file descriptor %d is a directory of the host",
				    fd);
		}
	}
	if (syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE) < 0)
		return fail(err, -errno, "close_range: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

static const int polite[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };

/* Whoever asks us to stop is heard between two steps, where what was made can be removed. */
static void settle_signals(void)
{
	sigset_t set;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL); /* refused for two of them */
	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(polite); i++)
		sigaddset(&set, polite[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

static int check_interrupted(struct err *err)
{
	sigset_t set;

	sigpending(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(polite); i++)
		if (sigismember(&set, polite[i]))
			return fail(err, -EINTR, "interrupted by signal %d", polite[i]);
	return 0;
}

int jail_inherit(struct jail *jail, struct err *err)
{
	int r;

	memset(jail, 0, sizeof *jail);
	jail->start_us = clock_us(CLOCK_MONOTONIC);
	jail->start_cpu_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
	jail->caller = geteuid();
	jail->report = jail->null = jail->exec = jail->netns = -1;
	for (unsigned i = 0; i < PLACES; i++)
		jail->place[i] = -1;
	for (unsigned i = 0; i < ARGS_CGROUPS_MAX; i++)
		jail->cgroup_mount[i] = jail->cgroup_dir[i] = -1;
	r = settle_files(err);
	if (r)
		return r;
	jail->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (jail->null < 0)
		return fail(err, -errno, "/dev/null: " OS_ERR, OS_ERR_ARGS(errno));
	settle_signals();
	clearenv();
	jail->umask = umask(0);
	personality(PER_LINUX);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

struct jail_undo *jail_made(struct jail *jail, int at, const char *name, int unlink_flags)
{
	struct jail_undo *u;

	assert(jail->undos < JAIL_UNDO_MAX);
	u = &jail->undo[jail->undos++];
	u->at = at;
	u->flags = unlink_flags;
	snprintf(u->name, sizeof u->name, "%s", name);
	return u;
}

void jail_undo(struct jail *jail)
{
	cgroup_leave(jail);
	enter_uncover(jail);
	while (jail->undos) {
		struct jail_undo *u = &jail->undo[--jail->undos];

		unlinkat(u->at, u->name, u->flags);
	}
}

void jail_undo_cgroups(struct jail *jail)
{
	while (jail->undos) {
		struct jail_undo *u = &jail->undo[--jail->undos];

		if (u->cgroup)
			unlinkat(u->at, u->name, u->flags);
	}
}

static int run_step(struct jail *jail, const struct step *s, struct err *err)
{
	static int (*const by_kind[])(struct jail *, const struct step *, struct err *) = {
		[STEP_NAMESPACES] = enter_step,	   [STEP_OPEN_EXEC] = open_step,
		[STEP_OPEN_BASE] = open_step,	   [STEP_OPEN_NETNS] = open_step,
		[STEP_FIND_CGROUP] = cgroup_step,  [STEP_CHECK_FREE] = make_step,
		[STEP_MAKE_DIR] = make_step,	   [STEP_MAKE_EXEC] = make_step,
		[STEP_MAKE_NODE] = make_step,	   [STEP_MAKE_CGROUP] = cgroup_step,
		[STEP_WRITE_CGROUP] = cgroup_step, [STEP_ENTER_NETNS] = enter_step,
		[STEP_LIMIT] = become_step,	   [STEP_GIVE_DIR] = make_step,
		[STEP_ENTER_ROOT] = enter_step,	   [STEP_SPAWN] = spawn_step,
		[STEP_JOIN_CGROUPS] = cgroup_step, [STEP_DROP] = become_step,
		[STEP_EXEC] = become_step,
	};

	return by_kind[s->kind](jail, s, err);
}

void jail_run(struct jail *jail, const struct plan *plan, struct err *err)
{
	int r = 0;

	jail->plan = plan;
	jail->args = plan->args;
	for (unsigned i = 0; i < plan->steps && !r; i++) {
		const struct step *s = &plan->step[i];

		/* Later than this not all could be removed: then the monitor gets the signal. */
		r = s->kind < STEP_JOIN_CGROUPS ? check_interrupted(err) : 0;
		if (!r)
			r = run_step(jail, s, err);
	}
	if (jail->report < 0) {
		jail_undo(jail);
		return;
	}
	/* The first process cleans up; it still may. */
	if (write(jail->report, err->msg, strlen(err->msg)) < 0)
		_exit(2);
	_exit(1);
}
