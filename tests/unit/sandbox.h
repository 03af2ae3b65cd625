/* sandbox: system call filters for tests, to prove what a piece of code does not call. */
#ifndef TEST_SANDBOX_H
#define TEST_SANDBOX_H

#include "src/vmm/base.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SANDBOX_MAX 32

/* From now on this thread gets `verdict` (SECCOMP_RET_*) for the calls listed, or for all others.
 */
static inline bool sandbox(const int *calls, unsigned n, bool listed, u32 verdict)
{
	u32 on_list = listed ? verdict : SECCOMP_RET_ALLOW;
	u32 off_list = listed ? SECCOMP_RET_ALLOW : verdict;
	struct sock_filter code[SANDBOX_MAX + 3];
	struct sock_fprog prog = { .filter = code };
	unsigned len = 0;

	assert(n <= SANDBOX_MAX);
	code[len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
	for (unsigned i = 0; i < n; i++)
		code[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)calls[i],
							   (u8)(n - i), 0);
	code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, off_list);
	code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, on_list);
	prog.len = (unsigned short)len;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

#endif
