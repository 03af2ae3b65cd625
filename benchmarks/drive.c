/*
 * drive: starts a monitor, talks to it as a client would, and reads the clocks.
 *
 *	drive [-n RUNS] [-a SOCKET] [-p 'PATH JSON']... [-m MARKER] [-w] -- COMMAND...
 *
 * One run: fork and exec COMMAND; with -a, wait for the socket and for the answer to GET / ; send
 * each -p as a PUT, the last of which is taken to be the one that starts the guest; wait until MARKER
 * appears in what COMMAND prints; with -w wait for its end, else kill it. Small and static, so that
 * the fork is cheap and a single processor (the emulated host) is left to the monitor: it sleeps in
 * poll() whenever it waits.
 *
 * Clocks: wall is CLOCK_MONOTONIC of this process; cpu is the monitor's own processor time, all its
 * threads, user and system and guest, in nanoseconds from the scheduler.
 */
#include "sample.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PUTS_MAX 32
#define RUN_LIMIT_S 1200 /* of a clock that may leap in the testbed while it waits for files */

static struct {
	const char *socket, *marker;
	char *put[PUTS_MAX];
	unsigned n_puts;
	bool wait;
	char **command;
} opt;

struct run {
	pid_t pid;
	int out, sock, watch; /* the monitor's output; the connection; closed late, for that waits */
	uint64_t exec_wall, start_wall, start_cpu;
	bool marked;
	char seen[4096]; /* the tail of the output */
	size_t n_seen;
};

static uint64_t cpu_ns(pid_t pid)
{
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock))
		die("clock_getcpuclockid");
	return clock_ns(clock);
}

static void spawn(struct run *r)
{
	int out[2];

	if (pipe2(out, O_CLOEXEC) < 0)
		die("pipe");
	r->exec_wall = now_ns();
	r->pid = fork();
	if (r->pid < 0)
		die("fork");
	if (!r->pid) {
		int null = open("/dev/null", O_RDONLY);

		setpgid(0, 0); /* COMMAND may be a tracer with the monitor below it */
		dup2(null, 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		execvp(opt.command[0], opt.command);
		die(opt.command[0]);
	}
	close(out[1]);
	r->out = out[0];
}

/* ---- the client's side of the API ---------------------------------------------------------------- */

/* The socket's directory tells when it appears; between bind and listen a connection is refused. */
static void connect_api(struct run *r)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char dir[sizeof addr.sun_path], event[4096];
	int watch = inotify_init1(IN_CLOEXEC);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", opt.socket);
	snprintf(dir, sizeof dir, "%s", opt.socket);
	*strrchr(dir, '/') = '\0';
	if (watch < 0 || inotify_add_watch(watch, dir, IN_CREATE) < 0)
		die(dir);
	r->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	spawn(r);
	while (connect(r->sock, (struct sockaddr *)&addr, sizeof addr) < 0) {
		struct pollfd fd[] = { { .fd = watch, .events = POLLIN }, { .fd = r->out } };

		if (errno != ENOENT && errno != ECONNREFUSED)
			die("connect");
		if (errno == ECONNREFUSED)
			continue;
		if (poll(fd, 2, -1) < 0 || fd[1].revents || read(watch, event, sizeof event) < 0) {
			fprintf(stderr, "drive: %s ended before its socket was there\n",
				opt.command[0]);
			exit(1);
		}
	}
	r->watch = watch;
}

static void ask(const struct run *r, const char *method, const char *path, const char *body)
{
	char text[8192];
	int n = snprintf(text, sizeof text,
			 "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 method, path, strlen(body), body);

	if (n < 0 || (size_t)n >= sizeof text || write(r->sock, text, (size_t)n) != n)
		die("request");
}

/* One answer; any but 2xx ends the benchmark. */
static void take_answer(const struct run *r)
{
	char text[8192], *body, *length;
	size_t n = 0, want = 0;
	ssize_t got;

	do {
		got = read(r->sock, text + n, sizeof text - 1 - n);
		if (got <= 0)
			die("answer");
		n += (size_t)got;
		text[n] = '\0';
		body = strstr(text, "\r\n\r\n");
		length = strcasestr(text, "content-length:");
		if (body)
			want = (size_t)(body + 4 - text) +
			       (length && length < body ? strtoul(length + 15, NULL, 10) : 0);
	} while (!body || n < want);
	if (strncmp(text, "HTTP/1.1 2", 10) != 0) {
		fprintf(stderr, "drive: %s\n", text);
		exit(1);
	}
}

static void put(const struct run *r, char *what)
{
	char *body = strchr(what, ' ');
	char path[256];

	snprintf(path, sizeof path, "%.*s", (int)(body - what), what);
	ask(r, "PUT", path, body + 1);
}

/* ---- one run --------------------------------------------------------------------------------------- */

static void take_output(struct run *r)
{
	ssize_t got;

	if (r->n_seen > sizeof r->seen / 2) { /* keep the tail: a marker may come in two pieces */
		memmove(r->seen, r->seen + sizeof r->seen / 4, r->n_seen - sizeof r->seen / 4);
		r->n_seen -= sizeof r->seen / 4;
	}
	got = read(r->out, r->seen + r->n_seen, sizeof r->seen - r->n_seen);
	if (got <= 0) {
		fprintf(stderr, "drive: ended without the marker: %.*s\n", (int)r->n_seen, r->seen);
		exit(1);
	}
	r->n_seen += (size_t)got;
	if (!memmem(r->seen, r->n_seen, opt.marker, strlen(opt.marker)))
		return;
	r->marked = true;
	sample("exec to marker, wall", now_ns() - r->exec_wall);
	sample("exec to marker, cpu", cpu_ns(r->pid));
	if (r->start_wall) {
		sample("start to marker, wall", now_ns() - r->start_wall);
		sample("start to marker, cpu", cpu_ns(r->pid) - r->start_cpu);
	}
}

/* The answer to the start request and the guest's first words come in either order. */
static void wait_for_guest(struct run *r)
{
	bool answered = r->sock < 0;

	while (!answered || !r->marked) {
		struct pollfd fd[] = { { .fd = r->marked ? -1 : r->out, .events = POLLIN },
				       { .fd = answered ? -1 : r->sock, .events = POLLIN } };

		if (poll(fd, 2, -1) < 0)
			die("poll");
		if (fd[0].revents)
			take_output(r);
		if (fd[1].revents) {
			take_answer(r);
			answered = true;
			sample("start to answer, wall", now_ns() - r->start_wall);
		}
	}
}

static void drive_api(struct run *r)
{
	uint64_t configuring;

	unlink(opt.socket);
	connect_api(r);
	ask(r, "GET", "/", "");
	take_answer(r);
	sample("exec to api, wall", now_ns() - r->exec_wall);
	sample("exec to api, cpu", cpu_ns(r->pid));
	configuring = now_ns();
	for (unsigned i = 0; i + 1 < opt.n_puts; i++) {
		put(r, opt.put[i]);
		take_answer(r);
	}
	if (!opt.n_puts)
		return;
	sample("configuring, wall", now_ns() - configuring);
	r->start_cpu = cpu_ns(r->pid);
	r->start_wall = now_ns();
	put(r, opt.put[opt.n_puts - 1]);
}

static void one(void)
{
	struct run r = { .sock = -1, .watch = -1 };
	char rest[4096];
	uint64_t killed;
	int status;

	if (opt.socket)
		drive_api(&r);
	else
		spawn(&r);
	if (opt.marker)
		wait_for_guest(&r);
	killed = now_ns();
	if (!opt.wait)
		kill(-r.pid, SIGKILL);
	while (read(r.out, rest, sizeof rest) > 0)
		;
	waitpid(r.pid, &status, 0);
	if (opt.wait)
		sample("exec to end, wall", now_ns() - r.exec_wall);
	else
		sample("killed to end, wall", now_ns() - killed);
	close(r.out);
	close(r.sock);
	close(r.watch);
}

int main(int argc, char **argv)
{
	int runs = 1, c;

	while ((c = getopt(argc, argv, "+n:a:p:m:w")) != -1) {
		if (c == 'n')
			runs = atoi(optarg);
		else if (c == 'a')
			opt.socket = optarg;
		else if (c == 'm')
			opt.marker = optarg;
		else if (c == 'w')
			opt.wait = true;
		else if (c == 'p' && opt.n_puts < PUTS_MAX && strchr(optarg, ' '))
			opt.put[opt.n_puts++] = optarg;
		else
			return 2;
	}
	opt.command = argv + optind;
	if (!*opt.command)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < runs; i++) {
		alarm(RUN_LIMIT_S);
		one();
	}
	return 0;
}
