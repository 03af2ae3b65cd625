/*
 * main: the table of contents. Parse, acquire, lock down, run; no other order is hidden anywhere.
 */
#include "../../api/server.h"
#include "../jail/lockdown.h"
#include "../jail/seccomp.h"
#include "console.h"
#include "instance.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "record.h"
#include "signals.h"
#include "snapshot.h"
#include "version.h"

#include <stdio.h>
#include <sys/prctl.h>

/* Exit codes of contract 2.1; those of signals are in signals.c, those of guests in vm.c. */
enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_BAD_LEVEL = 152, EXIT_BAD_ARGUMENT = 153 };

struct monitor {
	struct options options;
	struct loop *loop;
	struct signals signals;
	struct instance *instance;
	struct server *server;
};

static int say(const struct err *err, int code)
{
	fprintf(stderr, "Error: %s\n", err->msg);
	return code;
}

static void on_guest_end(void *owner, enum vm_end end, const char *detail)
{
	struct monitor *m = owner;
	int code = vm_end_exit_code(end);

	if (code == EXIT_OK) {
		log_info("Vmm is stopping: %s.", vm_end_name(end));
	} else {
		log_error("Vmm is stopping: %s (%s).", vm_end_name(end), detail);
		fprintf(stderr, "Error: %s (%s)\n", vm_end_name(end), detail);
	}
	loop_stop(m->loop, code);
}

static int start_log(const struct options *o, struct err *err)
{
	struct log_config cfg = { .show_level = o->show_level, .show_origin = o->show_log_origin };

	if (log_level_parse(o->level, &cfg.level) < 0) {
		fail(err, -EINVAL, "--level: '%s' is none of Off, Error, Warn, Info, Debug, Trace",
		     o->level);
		return EXIT_BAD_LEVEL;
	}
	if ((o->log_path && strlen(o->log_path) >= sizeof cfg.path) ||
	    (o->module && strlen(o->module) >= sizeof cfg.module)) {
		fail(err, -ENAMETOOLONG, "--log-path or --module is too long");
		return EXIT_BAD_ARGUMENT;
	}
	snprintf(cfg.path, sizeof cfg.path, "%s", o->log_path ? o->log_path : "");
	snprintf(cfg.module, sizeof cfg.module, "%s", o->module ? o->module : "");
	return log_configure(&cfg, err) < 0 ? EXIT_ERROR : EXIT_OK;
}

/* From here on a client may speak, or a file. */
static int lock_down(const struct options *o, struct err *err)
{
	int r = 0;

	if (o->no_seccomp) {
		log_warn("No system call filter is on (--no-seccomp): not for production.");
		seccomp_disable();
	} else if (o->seccomp_filter) {
		r = seccomp_load(o->seccomp_filter, err);
	}
	if (!r)
		r = lockdown(err);
	return r ? r : seccomp_install(FILTER_CONFIGURE, err);
}

static int acquire(struct monitor *m, struct err *err)
{
	const struct options *o = &m->options;
	struct vm_callbacks callbacks = { .ended = on_guest_end, .owner = m };
	int r;

	r = signals_init(&m->signals, m->loop, err);
	if (!r)
		r = instance_create(&m->instance, o->id, m->loop, &callbacks, err);
	if (r)
		return r;
	m->instance->config.boot_timer = o->boot_timer;
	if (!o->no_api)
		r = server_create(&m->server, m->loop, m->instance, o->api_sock, o->max_payload, err);
	if (!r)
		r = lock_down(o, err);
	if (!r && o->config_file)
		r = instance_load_config_file(m->instance, o->config_file, err);
	if (!r && o->config_file)
		r = instance_start(m->instance, err);
	if (!r && o->standby)
		instance_stand_by(m->instance);
	if (!r && o->config_file)
		log_info("Successfully started microvm that was configured from one single json");
	return r;
}

static void release(struct monitor *m)
{
	server_destroy(m->server);
	instance_destroy(m->instance);
	console_restore();
}

static int run(struct monitor *m)
{
	struct err err;
	int code, r;

	log_info("Running Firecracker v%s", VERSION_API);
	if (loop_create(&m->loop, &err) < 0)
		return say(&err, EXIT_ERROR);
	/* Everything outside loop_run() does what a callback does: with the machine lock held. */
	loop_lock(m->loop);
	r = acquire(m, &err);
	if (r < 0) {
		log_error("%s", err.msg);
		code = say(&err, EXIT_ERROR);
	} else {
		if (!m->options.no_api)
			log_info("API server started.");
		loop_unlock(m->loop);
		code = loop_run(m->loop);
		loop_lock(m->loop);
	}
	release(m);
	loop_unlock(m->loop);
	loop_destroy(m->loop);
	if (m->signals.fatal)
		return signals_finish(&m->signals);
	if (code == EXIT_OK)
		log_info("Firecracker exiting successfully. exit_code=0");
	else
		log_error("Firecracker exiting with error. exit_code=%d", code);
	return code;
}

/* The format is the major number: what reads one format reads all files of it. */
static int tell_format(u32 format)
{
	printf("v%u.0.0\n", format);
	return EXIT_OK;
}

static int describe_snapshot(const char *path)
{
	struct err err;
	u32 format;

	return snapshot_describe(path, &format, &err) < 0 ? say(&err, EXIT_ERROR)
							  : tell_format(format);
}

int main(int argc, char **argv)
{
	static struct monitor monitor;
	struct monitor *m = &monitor;
	struct err err;
	int code;

	/* Executed by a descriptor (by the jailer), older kernels call us by its number. */
	prctl(PR_SET_NAME, program_invocation_short_name);
	if (options_parse(&m->options, argc, argv, &err) < 0) {
		fprintf(stderr, "Arguments parsing error: %s\n\nFor more information try --help.\n",
			err.msg);
		return EXIT_BAD_ARGUMENT;
	}
	if (m->options.help) {
		options_print_help(argv[0]);
		return EXIT_OK;
	}
	if (m->options.version) {
		printf("Firecracker v%s\n\nmayfly %s\n", VERSION_API, VERSION_MAYFLY);
		return EXIT_OK;
	}
	if (m->options.snapshot_version)
		return tell_format(RECORD_FORMAT);
	if (m->options.describe_snapshot)
		return describe_snapshot(m->options.describe_snapshot);
	if (instance_id_check(m->options.id, &err) < 0)
		return say(&err, EXIT_ERROR);
	log_init(m->options.id);
	code = start_log(&m->options, &err);
	if (code != EXIT_OK)
		return say(&err, code);
	return run(m);
}
