/*
 * seccomp: puts the filters of filter.h on, or those of a file (contract 2.2).
 *
 * Each is one system call on the calling thread, and is never taken off again. Threads inherit what
 * their maker has on.
 */
#ifndef SECCOMP_H
#define SECCOMP_H

#include "../vmm/err.h"
#include "filter.h"

/* `--no-seccomp`: from here on seccomp_install() does nothing. */
void seccomp_disable(void);

/*
 * `--seccomp-filter`: reads the compiled filters of `path`, which take the place of ours: "vmm" for
 * run, "vcpu" for vcpu; "api" has no thread here and is checked only. The file is bounded, its
 * programs are checked by the kernel when they are put on. Error lines name the file.
 */
int seccomp_load(const char *path, struct err *err) MUST_CHECK;

/* On this thread, for good. */
int seccomp_install(enum filter_profile profile, struct err *err) MUST_CHECK;

/* The program of a profile, for tests; its length in instructions. */
struct sock_filter;
const struct sock_filter *seccomp_program(enum filter_profile profile, unsigned *n);

#endif
