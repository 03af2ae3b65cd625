/*
 * filter: which system calls each kind of thread may make, as data.
 *
 * One table for the three profiles, each row with its reason. A program of the build
 * (filter_make.c) turns it into BPF that is linked into the monitor (seccomp.c); tests hold the one
 * against the other. Whatever no row allows ends the whole process.
 *
 *	configure	the loop thread, from before the first byte of a client until the start
 *	run		the loop thread, from the start on (on top of the first: both have to agree)
 *	vcpu		each vCPU thread (on top of the first)
 */
#ifndef FILTER_H
#define FILTER_H

#include "../vmm/base.h"

enum filter_profile { FILTER_CONFIGURE, FILTER_RUN, FILTER_VCPU, FILTER_PROFILES };

/* What a row is part of: bits. */
#define FILTER_C 1u
#define FILTER_R 2u
#define FILTER_V 4u

#define FILTER_ARGS_MAX 2

/* The argument, under the mask, is the value. Mask 0: no condition. */
struct filter_arg {
	u8 index;
	u64 mask, value;
};

struct filter_row {
	int nr; /* __NR_* */
	u8 profiles;
	struct filter_arg arg[FILTER_ARGS_MAX]; /* all have to hold; several rows: any of them */
	const char *reason;
};

/* Sorted by nothing; ends with a row of nr -1. */
extern const struct filter_row filter_rows[];

/* A call that is answered with an error in every profile, where a library tries it first. */
#define FILTER_ENOSYS __NR_clone3

const char *filter_name(enum filter_profile profile);

/* Whether the table allows the call: what the BPF has to say. */
bool filter_allows(enum filter_profile profile, int nr, const u64 args[6]);

#endif
