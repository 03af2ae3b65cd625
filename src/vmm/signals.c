/* signals: see signals.h. */
#include "signals.h"

#include "console.h"
#include "log.h"
#include "vcpu.h"

#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#define EXIT_HANGUP 156

static const int asked[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPIPE };

static const struct {
	int sig, exit_code;
} faults[] = {
	{ SIGSYS, 148 },  { SIGBUS, 149 },  { SIGSEGV, 150 },
	{ SIGXCPU, 154 }, { SIGILL, 157 },
};

/* Only async-signal-safe calls: the process may be in any state. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	char line[] = "Shutting down VM after intercepting signal 00.\n";

	(void)info, (void)context;
	console_restore();
	line[sizeof line - 5] = (char)('0' + sig / 10);
	line[sizeof line - 4] = (char)('0' + sig % 10);
	if (write(STDERR_FILENO, line, sizeof line - 1) < 0)
		_exit(2);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		if (faults[i].sig == sig)
			_exit(faults[i].exit_code);
	_exit(2);
}

/*
 * A bug of ours. The C library's own function would tell of it with a system call that the filter of a
 * running machine does not have, and nothing would be told; this one ends like SIGILL.
 */
/* NOLINTNEXTLINE(bugprone-reserved-identifier): it takes the place of the C library's */
void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	char text[256];
	int n = snprintf(text, sizeof text, "%.80s:%u: %.60s: Assertion `%.80s' failed.\n", file, line,
			 function, assertion);

	if (n > 0 && write(STDERR_FILENO, text, MIN((size_t)n, sizeof text - 1)) < 0)
		_exit(2);
	__builtin_trap();
}

static void on_kick(int sig)
{
	(void)sig; /* its only work is to make KVM_RUN return */
}

static void on_asked(void *owner, u32 events)
{
	struct signals *s = owner;
	struct signalfd_siginfo info;

	(void)events;
	if (read(s->source.fd, &info, sizeof info) != sizeof info)
		return;
	if (info.ssi_signo == SIGPIPE) {
		/* Our own come from a sink that is gone: logging them would raise the next. */
		if (info.ssi_pid != (u32)s->pid)
			log_error("Received signal %u, code %d.", info.ssi_signo, info.ssi_code);
		return;
	}
	log_info("Shutting down VM after intercepting signal %u, code %d.", info.ssi_signo,
		 info.ssi_code);
	s->fatal = (int)info.ssi_signo;
	loop_stop(s->loop, 0);
}

static void install_handlers(void)
{
	struct sigaction kick = { .sa_handler = on_kick };
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESETHAND };

	sigaction(VCPU_KICK_SIGNAL, &kick, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		sigaction(faults[i].sig, &fault, NULL);
	/* A file size limit shall be the guest's I/O error, not our end. */
	signal(SIGXFSZ, SIG_IGN);
}

int signals_init(struct signals *s, struct loop *loop, struct err *err)
{
	sigset_t set;
	int r;

	install_handlers();
	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(asked); i++) {
		sigaddset(&set, asked[i]);
		signal(asked[i], SIG_DFL); /* an ignored signal, inherited so, would never arrive */
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	*s = (struct signals){
		.source = { .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
			    .events = EPOLLIN,
			    .ready = on_asked,
			    .owner = s },
		.loop = loop,
		.pid = getpid(),
	};
	r = s->source.fd < 0 ? -errno : loop_add(loop, &s->source);
	return r < 0 ? fail(err, r, "cannot watch for signals: " OS_ERR, OS_ERR_ARGS(-r)) : 0;
}

int signals_finish(const struct signals *s)
{
	sigset_t set;

	if (s->fatal == SIGHUP)
		return EXIT_HANGUP;
	sigemptyset(&set);
	sigaddset(&set, s->fatal);
	tgkill(s->pid, s->pid, s->fatal); /* not raise(): it asks who we are */
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 128 + s->fatal; /* not reached */
}
