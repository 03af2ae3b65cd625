/* lockdown: see lockdown.h. */
#include "lockdown.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Landlock (Linux 5.13 and later), as the kernel's documentation has it: headers may be older. */
#define NR_LANDLOCK_CREATE   444
#define NR_LANDLOCK_RESTRICT 446
#define LANDLOCK_VERSION     1

#define FS_EXECUTE    (1ull << 0)
#define FS_REMOVE_DIR (1ull << 4)
#define FS_MAKE_CHAR  (1ull << 6)
#define FS_MAKE_DIR   (1ull << 7)
#define FS_MAKE_FIFO  (1ull << 10)
#define FS_MAKE_BLOCK (1ull << 11)
#define FS_MAKE_SYM   (1ull << 12)
#define NET_TCP	      3ull /* bind, connect: since version 4 */
#define SCOPE_ALL     3ull /* abstract sockets, signals: since version 6 */

struct ruleset {
	u64 fs, net, scope;
};

/* Whatever a ruleset handles is denied where no rule allows it, and there are no rules. */
static int landlock(struct err *err)
{
	struct ruleset set = { .fs = FS_EXECUTE | FS_REMOVE_DIR | FS_MAKE_CHAR | FS_MAKE_DIR |
				     FS_MAKE_FIFO | FS_MAKE_BLOCK | FS_MAKE_SYM };
	long version = syscall(NR_LANDLOCK_CREATE, NULL, 0, LANDLOCK_VERSION);
	size_t size = sizeof set.fs;
	CLEANUP_FD int fd = -1;

	if (version < 1)
		return 0; /* not in this kernel, or switched off */
	if (version >= 4) {
		set.net = NET_TCP;
		size += sizeof set.net;
	}
	if (version >= 6) {
		set.scope = SCOPE_ALL;
		size += sizeof set.scope;
	}
	fd = (int)syscall(NR_LANDLOCK_CREATE, &set, size, 0);
	if (fd < 0 || syscall(NR_LANDLOCK_RESTRICT, fd, 0) < 0)
		return fail(err, -errno, "Landlock: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

int lockdown(struct err *err)
{
	const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(err, -errno, "no_new_privs: " OS_ERR, OS_ERR_ARGS(errno));
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(err, -errno, "PR_SET_DUMPABLE: " OS_ERR, OS_ERR_ARGS(errno));
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return fail(err, -errno, "RLIMIT_CORE: " OS_ERR, OS_ERR_ARGS(errno));
	return landlock(err);
}
