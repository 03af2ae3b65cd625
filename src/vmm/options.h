/*
 * options: the command line (contract 2.1). A table, read once by main().
 *
 * `--name value` and `--name=value` mean the same. Strings point into argv.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "base.h"
#include "err.h"

struct options {
	const char *api_sock;
	const char *id;
	const char *config_file;
	const char *log_path;
	const char *level;
	const char *module;
	u64 max_payload; /* bytes of one API request body */
	bool no_api;
	bool boot_timer;
	bool show_level;
	bool show_log_origin;
	const char *seccomp_filter; /* NULL: our own */
	bool standby, no_seccomp;
	const char *describe_snapshot; /* NULL: run */
	bool snapshot_version;
	bool help;
	bool version;
};

/* Defaults, then argv. The error line names the argument. */
int options_parse(struct options *options, int argc, char **argv, struct err *err) MUST_CHECK;

/* Prints the table, one option a line. */
void options_print_help(const char *program);

#endif
