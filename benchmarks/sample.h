/*
 * sample: what the small measuring programs share: a clock and one line per sample.
 *
 * They print raw samples, `<name> <nanoseconds>` (or another unit where the name says so), and
 * nothing else; medians, tables and files are made once, in lib.py.
 */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static inline void sample(const char *name, uint64_t value)
{
	printf("%s %llu\n", name, (unsigned long long)value);
}

__attribute__((noreturn)) static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

#endif
