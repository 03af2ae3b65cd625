/*
 * base: the vocabulary every other file may use - fixed-width types, checked arithmetic, volatile
 * access to memory shared with the guest, and clean-up bound to a scope.
 *
 * Knows nothing about the monitor. Everything here is a macro or a static inline.
 */
#ifndef BASE_H
#define BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

#define KIB(n) ((u64)(n) << 10)
#define MIB(n) ((u64)(n) << 20)
#define GIB(n) ((u64)(n) << 30)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

/* `to` is a power of two. */
#define ALIGN_DOWN(n, to) ((n) & ~((u64)(to)-1))
#define ALIGN_UP(n, to)	  ALIGN_DOWN((n) + (u64)(to)-1, to)

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* One load, one store, never repeated or torn by the compiler: for memory the guest can change. */
#define READ_ONCE(x)	 (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_CHECK	  __attribute__((warn_unused_result))

/* A large local that is read only where it was written: else the build zeroes it at each call. */
#define SCRATCH __attribute__((uninitialized))

/* True if [off, off + len) lies inside [0, size), whatever the numbers: no sum can wrap. */
static inline bool range_ok(u64 off, u64 len, u64 size)
{
	return off <= size && len <= size - off;
}

/* True if the two half-open ranges share a byte; the caller knows that neither wraps. */
static inline bool ranges_overlap(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a_len && b_len && a < b + b_len && b < a + a_len;
}

static inline void cleanup_fd_fn(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* `CLEANUP_FD int fd = open(...)`: closed when the scope ends, unless steal_fd() took it. */
#define CLEANUP_FD __attribute__((cleanup(cleanup_fd_fn)))

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
