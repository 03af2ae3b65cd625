/* filter: the BPF that is put on says what the table says, for every row and for calls at random.
 */
#include "src/jail/seccomp.h"
#include "tests/unit/test.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ROUNDS 1000000

/* cmocka's own calls a function whose name is ours. */
#define wrong(...)                                                                                 \
	do {                                                                                       \
		print_error(__VA_ARGS__);                                                          \
		assert_true(false);                                                                \
	} while (0)

/* ---- as much of BPF as seccomp programs use
 * ------------------------------------------------------ */

static u32 load(const struct seccomp_data *data, u32 off)
{
	u32 word;

	assert_true(off % 4 == 0 && off + 4 <= sizeof *data);
	memcpy(&word, (const u8 *)data + off, 4);
	return word;
}

static bool jumps(u16 code, u32 a, u32 k)
{
	switch (BPF_OP(code)) {
	case BPF_JEQ:
		return a == k;
	case BPF_JGT:
		return a > k;
	case BPF_JGE:
		return a >= k;
	case BPF_JSET:
		return a & k;
	}
	wrong("jump 0x%x", code);
	return false;
}

static u32 run(const struct sock_filter *op, unsigned n, const struct seccomp_data *data)
{
	u32 a = 0;

	for (unsigned pc = 0; pc < n; pc++) {
		const struct sock_filter *f = &op[pc];

		switch (BPF_CLASS(f->code)) {
		case BPF_LD:
			a = load(data, f->k);
			break;
		case BPF_ALU:
			assert_int_equal(BPF_OP(f->code), BPF_AND);
			a &= f->k;
			break;
		case BPF_JMP:
			if (BPF_OP(f->code) == BPF_JA)
				pc += f->k;
			else
				pc += jumps(f->code, a, f->k) ? f->jt : f->jf;
			break;
		case BPF_RET:
			return f->k;
		default:
			wrong("instruction 0x%x", f->code);
		}
	}
	wrong("the program has no end");
	return 0;
}

static u32 verdict(enum filter_profile profile, u32 arch, int nr, const u64 args[6])
{
	struct seccomp_data data = { .nr = nr, .arch = arch };
	const struct sock_filter *op;
	unsigned n;

	memcpy(data.args, args, sizeof data.args);
	op = seccomp_program(profile, &n);
	return run(op, n, &data);
}

static u32 expected(enum filter_profile profile, int nr, const u64 args[6])
{
	if (nr == FILTER_ENOSYS)
		return SECCOMP_RET_ERRNO | ENOSYS;
	return filter_allows(profile, nr, args) ? SECCOMP_RET_ALLOW : SECCOMP_RET_KILL_PROCESS;
}

static void agree(enum filter_profile profile, int nr, const u64 args[6])
{
	u32 got = verdict(profile, AUDIT_ARCH_X86_64, nr, args);

	if (got != expected(profile, nr, args))
		wrong("%s: call %d (%llx, %llx, %llx): 0x%x", filter_name(profile), nr,
		      (unsigned long long)args[0], (unsigned long long)args[1],
		      (unsigned long long)args[2], got);
}

static void every_row_lets_its_call_through_and_none_beside_it(void **state)
{
	(void)state;
	for (const struct filter_row *row = filter_rows; row->nr >= 0; row++)
		for (enum filter_profile p = 0; p < FILTER_PROFILES; p++) {
			u64 args[6] = { 0 };

			if (!(row->profiles >> p & 1))
				continue;
			for (unsigned i = 0; i < FILTER_ARGS_MAX; i++)
				args[row->arg[i].index] |= row->arg[i].value;
			assert_true(filter_allows(p, row->nr, args));
			agree(p, row->nr, args);
			/* Each bit of each argument, turned. */
			for (unsigned arg = 0; arg < 6; arg++)
				for (unsigned bit = 0; bit < 64; bit++) {
					args[arg] ^= 1ull << bit;
					agree(p, row->nr, args);
					args[arg] ^= 1ull << bit;
				}
		}
}

static void high_bits_of_an_ioctl_change_nothing(void **state)
{
	const u64 run_it[6] = { 5, 0xae80, 0 }, high[6] = { 5, 0xdead00000000ae80ull, 0 };
	const u64 other[6] = { 5, 0xdead00000000ae81ull, 0 };

	(void)state;
	assert_int_equal(verdict(FILTER_VCPU, AUDIT_ARCH_X86_64, SYS_ioctl, run_it),
			 SECCOMP_RET_ALLOW);
	assert_int_equal(verdict(FILTER_VCPU, AUDIT_ARCH_X86_64, SYS_ioctl, high),
			 SECCOMP_RET_ALLOW);
	assert_int_equal(verdict(FILTER_VCPU, AUDIT_ARCH_X86_64, SYS_ioctl, other),
			 SECCOMP_RET_KILL_PROCESS);
}

static u64 random_u64(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Mostly near the table, where mistakes would be. */
static void a_million_calls_at_random(void **state)
{
	u64 seed = 88172645463325252ull;
	unsigned rows = 0;

	(void)state;
	while (filter_rows[rows].nr >= 0)
		rows++;
	for (unsigned round = 0; round < ROUNDS; round++) {
		u64 r = random_u64(&seed), args[6];
		const struct filter_row *row = &filter_rows[r % rows];
		int nr = r >> 32 & 3 ? row->nr : (int)(random_u64(&seed) % 600);

		for (unsigned i = 0; i < 6; i++)
			args[i] = random_u64(&seed) >> (random_u64(&seed) % 64);
		if (r >> 34 & 3)
			args[row->arg[0].index] = row->arg[0].value;
		agree((enum filter_profile)(r >> 40) % FILTER_PROFILES, nr, args);
	}
}

static void other_ways_in_are_closed(void **state)
{
	const u64 none[6] = { 0 };

	(void)state;
	for (enum filter_profile p = 0; p < FILTER_PROFILES; p++)
		for (int nr = 0; nr < 600; nr++) {
			/* int 0x80, and x32 */
			assert_int_equal(verdict(p, AUDIT_ARCH_I386, nr, none),
					 SECCOMP_RET_KILL_PROCESS);
			assert_int_equal(verdict(p, AUDIT_ARCH_X86_64, nr | 0x40000000, none),
					 SECCOMP_RET_KILL_PROCESS);
		}
}

static void no_profile_knows_what_nobody_needs(void **state)
{
	static const int never[] = { SYS_execve,
				     SYS_execveat,
				     SYS_fork,
				     SYS_vfork,
				     SYS_ptrace,
				     SYS_unshare,
				     SYS_setns,
				     SYS_mount,
				     SYS_kill,
				     SYS_setuid,
				     SYS_bpf,
				     SYS_chmod,
				     SYS_chown,
				     SYS_open_by_handle_at,
				     SYS_process_vm_writev,
				     SYS_process_vm_readv,
				     SYS_keyctl };
	const u64 none[6] = { 0 };
	unsigned calls[FILTER_PROFILES] = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		for (enum filter_profile p = 0; p < FILTER_PROFILES; p++)
			assert_false(filter_allows(p, never[i], none));
	for (int nr = 0; nr < 600; nr++)
		for (enum filter_profile p = 0; p < FILTER_PROFILES; p++)
			for (const struct filter_row *row = filter_rows; row->nr >= 0; row++)
				if (row->nr == nr && row->profiles >> p & 1) {
					calls[p]++;
					break;
				}
	print_message("system calls: configure %u, run %u, vcpu %u\n", calls[FILTER_CONFIGURE],
		      calls[FILTER_RUN], calls[FILTER_VCPU]);
	assert_true(calls[FILTER_RUN] <= 45);
	assert_true(calls[FILTER_VCPU] <= 10);
}

static void nothing_gets_executable_memory(void **state)
{
	(void)state;
	for (enum filter_profile p = 0; p < FILTER_PROFILES; p++)
		for (u64 prot = 0; prot < 16; prot++) {
			const u64 args[6] = {
				0, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0
			};

			if (prot & PROT_EXEC) {
				assert_false(filter_allows(p, SYS_mmap, args));
				assert_false(filter_allows(p, SYS_mprotect, args));
			}
		}
}

/* ---- for real: in a child that puts the filter on
 * -------------------------------------------------- */

static int child(enum filter_profile profile, long nr, long a, long b, long c)
{
	struct err err;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0);
		signal(SIGSYS, SIG_DFL);
		if (seccomp_install(profile, &err) < 0)
			_exit(99);
		syscall(nr, a, b, c, 0, 0, 0);
		syscall(SYS_exit_group, 7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void the_kernel_agrees(void **state)
{
	(void)state;
	for (enum filter_profile p = 0; p < FILTER_PROFILES; p++) {
		assert_int_equal(child(p, SYS_write, -1, 0, 0), 7);
		assert_int_equal(child(p, SYS_clone3, 0, 0, 0), 7);
		assert_int_equal(child(p, SYS_getppid, 0, 0, 0), -SIGSYS);
		assert_int_equal(child(p, SYS_unshare, 0, 0, 0), -SIGSYS);
		assert_int_equal(child(p, SYS_execve, 0, 0, 0), -SIGSYS);
		assert_int_equal(child(p, SYS_clone, 0x10000000 /* a user namespace */, 0, 0),
				 -SIGSYS);
		assert_int_equal(child(p, SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC), -SIGSYS);
	}
	assert_int_equal(child(FILTER_RUN, SYS_socket, AF_INET, SOCK_STREAM, 0), -SIGSYS);
	assert_int_equal(child(FILTER_RUN, SYS_socket, AF_UNIX, SOCK_STREAM, 0), 7);
	assert_int_equal(child(FILTER_VCPU, SYS_openat, -1, 0, 0), -SIGSYS);
	assert_int_equal(child(FILTER_VCPU, SYS_ioctl, -1, 0xae80, 0), 7);
	assert_int_equal(child(FILTER_VCPU, SYS_ioctl, -1, 0xae03, 0), -SIGSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_lets_its_call_through_and_none_beside_it),
		cmocka_unit_test(high_bits_of_an_ioctl_change_nothing),
		cmocka_unit_test(a_million_calls_at_random),
		cmocka_unit_test(other_ways_in_are_closed),
		cmocka_unit_test(no_profile_knows_what_nobody_needs),
		cmocka_unit_test(nothing_gets_executable_memory),
		cmocka_unit_test(the_kernel_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
