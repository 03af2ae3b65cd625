/*
 * filter_make: part of the build: turns the table (filter.c) into BPF, as C source on standard
 * output. Links libseccomp, which the monitor does not.
 */
#include "filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "filter_make: %s: %s\n", what, strerror(-r));
	exit(1);
}

static void add_row(scmp_filter_ctx ctx, const struct filter_row *row)
{
	struct scmp_arg_cmp cmp[FILTER_ARGS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < FILTER_ARGS_MAX; i++)
		if (row->arg[i].mask)
			cmp[n++] = SCMP_CMP64(row->arg[i].index, SCMP_CMP_MASKED_EQ,
					      row->arg[i].mask, row->arg[i].value);
	check(seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, row->nr, n, cmp), row->reason);
}

/* A row without conditions allows what any other of the same call would. */
static bool is_free(enum filter_profile profile, int nr)
{
	for (const struct filter_row *row = filter_rows; row->nr >= 0; row++)
		if (row->nr == nr && row->profiles >> profile & 1 && !row->arg[0].mask)
			return true;
	return false;
}

static scmp_filter_ctx make(enum filter_profile profile)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);

	if (!ctx)
		check(-ENOMEM, "seccomp_init");
	check(seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2), "a binary search");
	check(seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS),
	      "int 0x80, x32");
	for (const struct filter_row *row = filter_rows; row->nr >= 0; row++)
		if (row->profiles >> profile & 1 &&
		    (!row->arg[0].mask || !is_free(profile, row->nr)))
			add_row(ctx, row);
	check(seccomp_rule_add_exact(ctx, SCMP_ACT_ERRNO(ENOSYS), FILTER_ENOSYS, 0), "clone3");
	return ctx;
}

static void print(enum filter_profile profile)
{
	int fd = memfd_create("bpf", MFD_CLOEXEC);
	scmp_filter_ctx ctx = make(profile);
	struct sock_filter op;

	if (fd < 0)
		check(-errno, "memfd");
	check(seccomp_export_bpf(ctx, fd), "seccomp_export_bpf");
	if (lseek(fd, 0, SEEK_SET) < 0)
		check(-errno, "lseek");
	printf("static const struct sock_filter bpf_%s[] = {\n", filter_name(profile));
	while (read(fd, &op, sizeof op) == sizeof op)
		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", op.code, op.jt, op.jf, op.k);
	printf("};\n\n");
	seccomp_release(ctx);
	close(fd);
}

int main(void)
{
	printf("/* Made by filter_make from src/jail/filter.c. */\n");
	for (enum filter_profile profile = 0; profile < FILTER_PROFILES; profile++)
		print(profile);
	return 0;
}
