/*
 * listen: opens the API's socket so that its name appears only when it accepts connections. Clients
 * wait for the file and then connect once, without trying again.
 */
#ifndef LISTEN_H
#define LISTEN_H

#include "../src/vmm/err.h"

/*
 * A non-blocking listening socket at `path`, mode by the umask. Whatever exists there already, dead
 * socket or not, stays, and is an error. Returns the fd.
 */
int listen_open(const char *path, struct err *err) MUST_CHECK;

#endif
