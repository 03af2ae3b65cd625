/*
 * rng: virtio entropy source (virtio 1.2, section 5.4), fed by getrandom(2).
 *
 * At most 64 KiB per request; a longer buffer is filled to there, which the specification allows.
 * After 128 KiB the loop turns to the other devices before it comes back.
 * Loop thread or a dispatcher under the machine lock.
 */
#ifndef RNG_H
#define RNG_H

#include "device.h"
#include "limit.h"

struct rng;

int rng_create(struct rng **rng, const struct mem *mem, struct loop *loop,
	       struct err *err) MUST_CHECK;
void rng_destroy(struct rng *rng);
struct device *rng_device(struct rng *rng);

/* Buckets that are given apply from now on (none at first): an operation each, and its bytes. */
void rng_limit(struct rng *rng, const struct limit_config *limit);

#endif
