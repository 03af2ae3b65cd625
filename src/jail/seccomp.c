/*
 * seccomp: see seccomp.h.
 *
 * The file of `--seccomp-filter` is what Firecracker's compiler writes: a map from thread names to
 * programs, in bincode with fixed-size integers: u64 number of entries; each a string (u64 length,
 * bytes) and a list (u64 length, u64 words, each one BPF instruction as it lies in memory).
 */
#include "seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "filters.h" /* made by the build */

#define FILE_MAX    100000u /* bytes */
#define PROGRAM_MAX BPF_MAXINSNS

static struct {
	const struct sock_filter *op;
	unsigned n;
} program[] = {
	[FILTER_CONFIGURE] = { bpf_configure, ARRAY_SIZE(bpf_configure) },
	[FILTER_RUN] = { bpf_run, ARRAY_SIZE(bpf_run) },
	[FILTER_VCPU] = { bpf_vcpu, ARRAY_SIZE(bpf_vcpu) },
};
static_assert(ARRAY_SIZE(program) == FILTER_PROFILES, "a program for each");

static bool disabled;

void seccomp_disable(void)
{
	disabled = true;
}

const struct sock_filter *seccomp_program(enum filter_profile profile, unsigned *n)
{
	*n = program[profile].n;
	return program[profile].op;
}

int seccomp_install(enum filter_profile profile, struct err *err)
{
	struct sock_fprog prog = { .len = (u16)program[profile].n,
				   .filter = (struct sock_filter *)(uintptr_t)program[profile].op };

	if (disabled || !prog.len)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return fail(err, -errno, "the system call filter \"%s\" cannot be put on: " OS_ERR,
			    filter_name(profile), OS_ERR_ARGS(errno));
	return 0;
}

/* ---- filters from a file -------------------------------------------------------------------- */

struct reader {
	const u8 *at, *end;
	bool failed;
};

/* The next `len` bytes; NULL (for good) if there are fewer. */
static const u8 *take(struct reader *r, u64 len)
{
	const u8 *p = r->at;

	if (r->failed || len > (u64)(r->end - r->at)) {
		r->failed = true;
		return NULL;
	}
	r->at += len;
	return p;
}

static u64 take_u64(struct reader *r)
{
	const u8 *p = take(r, sizeof(u64));
	u64 n = 0;

	if (p)
		memcpy(&n, p, sizeof n);
	return n;
}

/* What the names in the file stand for here; FILTER_PROFILES: a thread that we have not. */
static bool profile_of(const char *name, u64 len, enum filter_profile *profile)
{
	static const struct {
		const char *name;
		enum filter_profile profile;
	} names[] = {
		{ "vmm", FILTER_RUN },
		{ "vcpu", FILTER_VCPU },
		{ "api", FILTER_PROFILES },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i].name) == len && memcmp(names[i].name, name, len) == 0) {
			*profile = names[i].profile;
			return true;
		}
	return false;
}

static int take_entry(struct reader *r, bool seen[FILTER_PROFILES + 1], const char *path,
		      struct err *err)
{
	u64 len = take_u64(r), n;
	const char *name = (const char *)take(r, len);
	const u8 *ops;
	enum filter_profile profile;
	struct sock_filter *copy;

	if (!name || !profile_of(name, len, &profile))
		return fail(err, -EINVAL,
			    "--seccomp-filter: %s: a thread that is not vmm, api or vcpu", path);
	n = take_u64(r);
	if (n > PROGRAM_MAX)
		return fail(err, -EINVAL,
			    "--seccomp-filter: %s: a filter of %llu instructions, at most "
			    "%u are possible",
			    path, (unsigned long long)n, PROGRAM_MAX);
	ops = take(r, n * sizeof *copy);
	if (!ops || seen[profile])
		return fail(err, -EINVAL, "--seccomp-filter: %s: %s", path,
			    ops ? "the same thread twice" : "cut short");
	seen[profile] = true;
	if (profile == FILTER_PROFILES)
		return 0;
	copy = calloc(n + 1, sizeof *copy); /* lives as long as the process */
	if (!copy)
		return fail(err, -ENOMEM, "--seccomp-filter: no memory for a filter");
	memcpy(copy, ops, n * sizeof *copy);
	program[profile].op = copy;
	program[profile].n = (unsigned)n;
	return 0;
}

static int parse(const u8 *bytes, size_t len, const char *path, struct err *err)
{
	struct reader r = { bytes, bytes + len, false };
	bool seen[FILTER_PROFILES + 1] = { false };
	u64 entries = take_u64(&r);
	int ret;

	if (entries != 3)
		return fail(err, -EINVAL,
			    "--seccomp-filter: %s: not a compiled filter for vmm, api and vcpu",
			    path);
	for (u64 i = 0; i < entries; i++) {
		ret = take_entry(&r, seen, path, err);
		if (ret < 0)
			return ret;
	}
	if (r.at != r.end)
		return fail(err, -EINVAL, "--seccomp-filter: %s: bytes behind its end", path);
	/* Whoever brings filters of his own decides alone. */
	program[FILTER_CONFIGURE].n = 0;
	return 0;
}

int seccomp_load(const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	u8 *bytes;
	ssize_t n;
	int r;

	if (fd < 0)
		return fail(err, -errno, "--seccomp-filter: %s cannot be opened: " OS_ERR, path,
			    OS_ERR_ARGS(errno));
	bytes = malloc(FILE_MAX + 1);
	if (!bytes)
		return fail(err, -ENOMEM, "--seccomp-filter: no memory");
	n = pread(fd, bytes, FILE_MAX + 1, 0);
	if (n < 0)
		r = fail(err, -errno, "--seccomp-filter: %s cannot be read: " OS_ERR, path,
			 OS_ERR_ARGS(errno));
	else if (n > (ssize_t)FILE_MAX)
		r = fail(err, -EFBIG, "--seccomp-filter: %s has more than %u bytes", path,
			 FILE_MAX);
	else
		r = parse(bytes, (size_t)n, path, err);
	free(bytes);
	return r;
}
