/*
 * log: lines for people and for the tools that match on them.
 *
 * One process, one logger. Any thread may log except vCPU threads, which tell the loop thread
 * instead (their filter has no file descriptors to write to). A line that cannot be written at once
 * (a FIFO without reader, a full pipe) is dropped and counted: logging never blocks, never raises
 * SIGPIPE. Nothing is allocated per line.
 *
 * Line format (contract 5.1): `2026-01-31T12:00:00.123456789 [id:thread:LEVEL:file:line] message`,
 * local time; level and origin only when asked for. Control characters in a message are escaped, so
 * that nothing a client or a guest sends can forge a line.
 */
#ifndef LOG_H
#define LOG_H

#include "base.h"
#include "err.h"

enum log_level { LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE, LOG_LEVELS };

struct log_config {
	char path[4096]; /* empty: the sink stays as it is (stdout at first) */
	enum log_level level;
	bool show_level;
	bool show_origin;
	char module[128]; /* only origins that begin with it; empty: all */
};

/*
 * Before the first line, before any other thread and before the root directory changes: reads the
 * time zone, and takes a file description of stdout of its own, so that the one inherited is never
 * made non-blocking for its other users. `id` is copied and names this microVM in every line; may
 * be called again with a better id. SIGPIPE is ignored from here on unless somebody handles it;
 * such a handler must not log (a broken stdout would raise it again).
 */
void log_init(const char *id);

/*
 * Switches to a new sink and level; the file is opened (O_RDWR|O_NONBLOCK|O_CREAT|O_APPEND, never
 * truncated) before the old sink is closed. On error the old settings stay.
 */
int log_configure(const struct log_config *cfg, struct err *err) MUST_CHECK;

/* The settings in force, with an empty path: what a partial change starts from. */
void log_settings(struct log_config *cfg);

/* Parses Off|Trace|Debug|Info|Warn|Warning|Error in any case; -EINVAL otherwise. */
int log_level_parse(const char *text, enum log_level *level) MUST_CHECK;

/* Lines that could not be written so far (metrics: logger.missed_log_count). */
u64 log_missed(void);

/* Not from a signal handler. A line is at most 4096 bytes (PIPE_BUF: whole or not at all). */
void log_write(enum log_level level, const char *file, int line, const char *fmt, ...) PRINTF(4, 5);

#define log_error(...) log_write(LOG_ERROR, __FILE__, __LINE__, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __FILE__, __LINE__, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __FILE__, __LINE__, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __FILE__, __LINE__, __VA_ARGS__)

/* What the calling thread's lines say of their origin; `name` lives as long as it. Default "main". */
void log_thread(const char *name);

/*
 * For lines a guest can provoke: at most 10 per 5 s from one call site (contract 5.1); the rest is
 * counted and the count is told with the next line that passes.
 */
struct log_limit {
	u64 window_ns;
	u32 used, dropped;
};
bool log_limit_pass(struct log_limit *limit);

#define log_guest(...)                                                                             \
	do {                                                                                       \
		static struct log_limit limit_;                                                    \
		if (log_limit_pass(&limit_))                                                       \
			log_warn(__VA_ARGS__);                                                     \
	} while (0)

#endif
