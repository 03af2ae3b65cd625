/*
 * uffd: guest RAM whose pages come from another process, the page fault handler (userfaultfd(2)). The
 * handshake is Firecracker's, so that handlers written for it serve us: one message with where RAM is,
 * as JSON, and the descriptor that tells of faults and takes pages.
 *
 * Loop thread. A handler that never answers stops whoever touches the page, the loop as well: that is
 * what it is trusted with. One that is gone is noticed, if its process can be seen from here.
 */
#ifndef UFFD_H
#define UFFD_H

#include "loop.h"
#include "mem.h"

struct uffd {
	int fd, sock, process; /* -1: not there */
	struct loop *loop;
	struct loop_source gone; /* watches `process` */
	void (*lost)(void *owner);
	void *owner;
};

void uffd_init(struct uffd *uffd);

/*
 * RAM is anonymous and untouched. Connects to the handler that listens at `path` and hands it over;
 * from here on a touch of RAM waits for the handler. `lost(owner)` is called once if its process ends
 * and its connection is closed.
 */
int uffd_serve(struct uffd *uffd, const struct mem *mem, const char *path, struct loop *loop,
	       void (*lost)(void *owner), void *owner, struct err *err) MUST_CHECK;

/*
 * Whoever waits for a page goes on, and reads zeros: only for a machine that will not run again.
 * Accepts one that serves nothing.
 */
void uffd_destroy(struct uffd *uffd);

#endif
