/*
 * version: the level of the Firecracker API that this monitor implements, defined once.
 *
 * Clients switch fields on and off by it (docs/api.md), so it names what is really there. Strict
 * semantic version; `--version` and GET /version print the same text.
 */
#ifndef VERSION_H
#define VERSION_H

#define VERSION_API	 "1.16.0"
#define VERSION_APP_NAME "Firecracker"

/* Our own. */
#define VERSION_MAYFLY "0.1.0"

#endif
