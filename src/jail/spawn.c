/*
 * spawn: the process that will be the monitor, where it cannot be this one.
 *
 *	plain			this process goes on and becomes the monitor; its pid stays
 *	--new-pid-ns, --wait	one child
 *	--daemonize		a child that leaves the session, and its child
 *
 * Whoever starts the last process writes its pid file and only then lets it go on; a start that is
 * interrupted in between ends there. The first process waits until the monitor has been executed
 * (the report pipe closes by itself) or says on standard error why not, so a driver that sees status
 * 0 finds the pid file and a monitor.
 */
#include "jail.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int write_pid(struct jail *jail, const char *name, pid_t pid, struct err *err)
{
	int at = jail->place[PLACE_ROOT];
	CLEANUP_FD int fd = path_open(at, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
	char text[16];
	int n = snprintf(text, sizeof text, "%d", pid);

	if (fd >= 0)
		jail_made(jail, at, name, 0);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return fail(err, fd < 0 ? fd : -EIO, "--id: the pid file %s: " OS_ERR, name,
			    OS_ERR_ARGS(fd < 0 ? -fd : errno));
	return 0;
}

/* As fork(), into the process namespace and, in one step, into the cgroup. */
static pid_t clone_monitor(struct jail *jail)
{
	bool into = jail->args->cgroup_version == 2 && jail->plan->groups &&
		    !jail->plan->move_to_parent;
	struct clone_args how = { .exit_signal = SIGCHLD };
	long pid;

	if (jail->args->new_pid_ns)
		how.flags |= CLONE_NEWPID;
	if (into) {
		how.flags |= CLONE_INTO_CGROUP;
		how.cgroup = (u64)jail->cgroup_dir[0];
	}
	pid = syscall(SYS_clone3, &how, sizeof how);
	if (pid < 0 && into && (errno == EINVAL || errno == E2BIG)) {
		how.flags &= ~(u64)CLONE_INTO_CGROUP;
		how.cgroup = 0;
		into = false;
		pid = syscall(SYS_clone3, &how, sizeof how);
	}
	if (pid == 0)
		jail->in_cgroup = into;
	return pid < 0 ? -errno : (pid_t)pid;
}

/* In the last process: goes on once its pid is on record. */
static int wait_for_go(int go[2])
{
	char c;

	close(go[1]);
	if (read(go[0], &c, 1) != 1)
		_exit(1); /* whoever started us is gone */
	close(go[0]);
	return 0;
}

/* Starts the last process; returns 0 in it, its pid in the caller. */
static pid_t start_last(struct jail *jail, const char *pid_name, struct err *err)
{
	int go[2], r;
	pid_t pid;

	if (pipe2(go, O_CLOEXEC) < 0)
		return fail(err, -errno, "pipe: " OS_ERR, OS_ERR_ARGS(errno));
	pid = clone_monitor(jail);
	if (pid == 0)
		return wait_for_go(go);
	close(go[0]);
	if (pid < 0) {
		close(go[1]);
		return fail(err, pid, "--new-pid-ns: no process can be started: " OS_ERR,
			    OS_ERR_ARGS(-pid));
	}
	r = write_pid(jail, pid_name, pid, err);
	if (!r && write(go[1], "", 1) != 1)
		r = fail(err, -EPIPE, "the new process has ended");
	close(go[1]);
	if (r) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return r;
	}
	return pid;
}

/* In the process between: out of the session, then the last one. Returns in the last one only. */
static int leave_session(struct jail *jail, const char *pid_name, int null, struct err *err)
{
	pid_t pid;

	if (setsid() < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		return fail(err, -errno, "--daemonize: " OS_ERR, OS_ERR_ARGS(errno));
	pid = start_last(jail, pid_name, err);
	if (pid > 0)
		_exit(0);
	return pid;
}

static void forward(int pidfd, int signal)
{
	syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/* Hands signals on until the child has ended; its status as a shell would say it. */
static int supervise(pid_t pid)
{
	CLEANUP_FD int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	sigset_t all;
	int status, signal;

	sigfillset(&all);
	for (;;) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		if (sigwait(&all, &signal) == 0 && signal != SIGCHLD)
			forward(pidfd, signal);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The first process: until the report pipe closes. Does not return. */
static void follow(struct jail *jail, pid_t pid, int report)
{
	struct err err = { "" };
	size_t used = 0;
	ssize_t n;

	while ((n = read(report, err.msg + used, sizeof err.msg - 1 - used)) > 0)
		used += (size_t)n;
	if (used) {
		waitpid(pid, NULL, 0);
		fprintf(stderr, "Error: %s\n", err.msg);
		jail_undo(jail);
		_exit(1);
	}
	if (jail->args->wait) {
		int code = supervise(pid);

		jail_undo_cgroups(jail);
		_exit(code);
	}
	if (jail->args->daemonize)
		waitpid(pid, NULL, 0);
	_exit(0);
}

int spawn_step(struct jail *jail, const struct step *s, struct err *err)
{
	const struct args *a = jail->args;
	CLEANUP_FD int null = -1;
	sigset_t all, before;
	int report[2];
	pid_t pid;

	if (!a->daemonize && !a->new_pid_ns && !a->wait)
		return write_pid(jail, s->name, getpid(), err);
	null = jail->null;
	jail->null = -1;
	if (pipe2(report, O_CLOEXEC) < 0)
		return fail(err, -errno, "pipe: " OS_ERR, OS_ERR_ARGS(errno));
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	if (a->daemonize) {
		pid = fork();
		if (pid < 0)
			return fail(err, -errno, "--daemonize: " OS_ERR, OS_ERR_ARGS(errno));
	} else {
		pid = start_last(jail, s->name, err);
		if (pid < 0)
			return pid;
	}
	if (pid > 0) {
		close(report[1]);
		/* What the processes below make is removed from here, if they fail. */
		if (a->daemonize)
			jail_made(jail, jail->place[PLACE_ROOT], s->name, 0);
		if (!a->wait)
			sigprocmask(SIG_SETMASK, &before, NULL);
		follow(jail, pid, report[0]);
	}
	close(report[0]);
	jail->report = report[1];
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (a->daemonize)
		return leave_session(jail, s->name, null, err);
	return 0;
}
