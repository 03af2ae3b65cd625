/*
 * log: see log.h.
 *
 * Invariant: a line is built whole in a buffer on the stack and leaves in one system call that
 * cannot block; what does not fit into the sink at that moment is dropped and counted. The length
 * of a line is at most PIPE_BUF, so that a pipe takes it whole or not at all.
 */
#include "log.h"

#include "io.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define LINE_SIZE	PIPE_BUF
#define LIMIT_WINDOW_NS 5000000000u
#define LIMIT_LINES	10

/* How to write to the sink without ever waiting. */
enum sink_kind {
	SINK_PLAIN,  /* regular file, or opened by us with O_NONBLOCK */
	SINK_SHARED, /* somebody else's blocking description: ask first */
	SINK_SOCKET,
};

static struct {
	pthread_mutex_t lock; /* the settings and the sink; nothing that waits happens under it */
	char id[128];
	int fd;
	enum sink_kind kind;
	int epoll; /* of SINK_SHARED, to ask with */
	enum log_level level;
	bool show_level, show_origin;
	char module[128];
} logger = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDOUT_FILENO, .epoll = -1, .level = LOG_INFO
};

static _Atomic u64 missed;

/* ---- sinks -------------------------------------------------------------------------------- */

/*
 * O_NONBLOCK belongs to the file description, which stdout shares with the shell and whoever else
 * inherited it. A new description of the same pipe or terminal is ours alone. (A regular file never
 * blocks in this sense, and a new description would start at offset 0.)
 */
static void take_stdout(void)
{
	struct stat st;
	int fd;

	logger.fd = STDOUT_FILENO;
	logger.kind = SINK_PLAIN;
	if (fstat(STDOUT_FILENO, &st) < 0 || S_ISREG(st.st_mode))
		return;
	if (S_ISSOCK(st.st_mode)) {
		logger.kind = SINK_SOCKET;
		return;
	}
	fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0) {
		logger.fd = fd;
	} else {
		logger.kind = SINK_SHARED;
		logger.epoll = epoll_create1(EPOLL_CLOEXEC);
	}
}

static bool sink_write(const char *line, size_t len)
{
	switch (logger.kind) {
	case SINK_SOCKET:
		return io_send(logger.fd, line, len) == (ssize_t)len;
	case SINK_SHARED:
		if (!(io_poll(logger.epoll, logger.fd, EPOLLOUT, 0) & EPOLLOUT))
			return false;
		break;
	case SINK_PLAIN:
		break;
	}
	return write(logger.fd, line, len) == (ssize_t)len;
}

/* O_RDWR: a FIFO opens although nobody reads it yet, and can never raise SIGPIPE. */
static int open_sink(const char *path, struct err *err)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644);

	if (fd < 0)
		return fail(err, -errno, "Failed to open target file: " OS_ERR ": %s",
			    OS_ERR_ARGS(errno), path);
	return fd;
}

static void set_sink(int fd)
{
	if (logger.fd > STDERR_FILENO)
		close(logger.fd);
	if (logger.epoll >= 0)
		close(logger.epoll);
	logger.epoll = -1;
	logger.fd = fd;
	logger.kind = SINK_PLAIN;
}

/* ---- settings ----------------------------------------------------------------------------- */

void log_init(const char *id)
{
	struct sigaction pipe_action;
	time_t now = time(NULL);
	struct tm tm;

	/* Both: the second makes glibc build all that it caches about the zone. */
	tzset();
	localtime_r(&now, &tm);
	if (sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
	pthread_mutex_lock(&logger.lock);
	if (!logger.id[0])
		take_stdout();
	snprintf(logger.id, sizeof logger.id, "%s", id);
	pthread_mutex_unlock(&logger.lock);
}

int log_configure(const struct log_config *cfg, struct err *err)
{
	int fd = -1;

	if (cfg->path[0]) {
		fd = open_sink(cfg->path, err);
		if (fd < 0)
			return fd;
	}
	pthread_mutex_lock(&logger.lock);
	if (fd >= 0)
		set_sink(fd);
	logger.level = cfg->level;
	logger.show_level = cfg->show_level;
	logger.show_origin = cfg->show_origin;
	snprintf(logger.module, sizeof logger.module, "%s", cfg->module);
	pthread_mutex_unlock(&logger.lock);
	return 0;
}

void log_settings(struct log_config *cfg)
{
	pthread_mutex_lock(&logger.lock);
	cfg->path[0] = '\0';
	cfg->level = logger.level;
	cfg->show_level = logger.show_level;
	cfg->show_origin = logger.show_origin;
	snprintf(cfg->module, sizeof cfg->module, "%s", logger.module);
	pthread_mutex_unlock(&logger.lock);
}

int log_level_parse(const char *text, enum log_level *level)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{ "Off", LOG_OFF },	 { "Error", LOG_ERROR }, { "Warn", LOG_WARN },
		{ "Warning", LOG_WARN }, { "Info", LOG_INFO },	 { "Debug", LOG_DEBUG },
		{ "Trace", LOG_TRACE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(text, names[i].name) == 0) {
			*level = names[i].level;
			return 0;
		}
	}
	return -EINVAL;
}

u64 log_missed(void)
{
	return atomic_load_explicit(&missed, memory_order_relaxed);
}

/* ---- lines -------------------------------------------------------------------------------- */

static __thread const char *thread_name = "main";

void log_thread(const char *name)
{
	thread_name = name;
}

/* Everything before the message. Room is there: each part is bounded, far below LINE_SIZE. */
static size_t put_prefix(char *line, size_t size, enum log_level level, const char *file,
			 int lineno)
{
	static const char *const level_name[LOG_LEVELS] = { "OFF",  "ERROR", "WARN",
							    "INFO", "DEBUG", "TRACE" };
	char origin[160] = "";
	struct timespec ts;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	if (logger.show_origin)
		snprintf(origin, sizeof origin, ":%s:%d", file, lineno);
	n = snprintf(line, size, "%04d-%02d-%02dT%02d:%02d:%02d.%09ld [%s:%s%s%s%s] ",
		     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     ts.tv_nsec, logger.id, thread_name, logger.show_level ? ":" : "",
		     logger.show_level ? level_name[level] : "", origin);
	return MIN((size_t)n, size - 1);
}

/* Appends `text` with control characters made visible; clips. Leaves room for the newline. */
static size_t put_escaped(char *line, size_t at, size_t size, const char *text)
{
	for (; *text && at < size; text++) {
		unsigned char c = (unsigned char)*text;
		char piece[8] = { (char)c };

		if (c == '\n')
			strcpy(piece, "\\n");
		else if (c == '\r')
			strcpy(piece, "\\r");
		else if (c == '\t')
			strcpy(piece, "\\t");
		else if (c < 0x20 || c == 0x7f)
			snprintf(piece, sizeof piece, "\\x%02x", c);
		for (const char *p = piece; *p && at < size; p++)
			line[at++] = *p;
	}
	return at;
}

static bool wanted(enum log_level level, const char *file)
{
	return level <= logger.level && strncmp(file, logger.module, strlen(logger.module)) == 0;
}

void log_write(enum log_level level, const char *file, int lineno, const char *fmt, ...)
{
	char message[LINE_SIZE], line[LINE_SIZE];
	int saved_errno = errno;
	va_list ap;
	size_t n;

	assert(level > LOG_OFF && level < LOG_LEVELS);
	pthread_mutex_lock(&logger.lock);
	if (wanted(level, file)) {
		va_start(ap, fmt);
		vsnprintf(message, sizeof message, fmt, ap);
		va_end(ap);
		n = put_prefix(line, sizeof line, level, file, lineno);
		n = put_escaped(line, n, sizeof line - 1, message);
		line[n++] = '\n';
		if (!sink_write(line, n))
			atomic_fetch_add_explicit(&missed, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&logger.lock);
	errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit)
{
	struct timespec ts;
	u64 now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
	if (!limit->window_ns || now - limit->window_ns >= LIMIT_WINDOW_NS) {
		if (limit->dropped)
			log_warn("%u lines like the next one were not logged.", limit->dropped);
		*limit = (struct log_limit){ .window_ns = now };
	}
	if (limit->used >= LIMIT_LINES) {
		limit->dropped++;
		return false;
	}
	limit->used++;
	return true;
}
