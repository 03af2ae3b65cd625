/*
 * share: a machine that others are made from. Its state and its RAM, frozen at one moment, are handed
 * to whoever connects: two sealed memfds over a Unix socket, nothing is copied (docs/snapshots.md).
 *
 * Whoever may connect to the socket gets the whole machine: its file's mode and directory decide.
 * Loop thread.
 */
#ifndef SHARE_H
#define SHARE_H

#include "loop.h"
#include "state.h"

struct share;

/* The machine is paused, and frozen afterwards. The socket's name is removed by share_destroy(). */
int share_create(struct share **share, struct vm *vm, const char *config, const char *path,
		 struct loop *loop, struct err *err) MUST_CHECK;
void share_destroy(struct share *share); /* accepts NULL */

/*
 * The other side: state and memory of the machine that is shared at `path`, within some seconds. Both
 * are sealed (checked), so that the other side cannot change or cut them any more.
 */
int share_take(const char *path, int *state_fd, int *mem_fd, struct err *err) MUST_CHECK;

#endif
