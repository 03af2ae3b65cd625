/*
 * bus: the map from a guest address (memory-mapped or port) to the code that answers it.
 *
 * Filled while the machine is built, sealed before the first vCPU runs, immutable afterwards: no
 * lock, no reference count, no removal. One bus for MMIO, one for ports.
 *
 * An access that no entry covers whole is a hole: reads give all ones, writes go nowhere. Handlers
 * run under the machine lock unless their entry says `lockless` (registers that are one atomic
 * word, such as virtio-mmio's InterruptStatus).
 */
#ifndef BUS_H
#define BUS_H

#include "base.h"
#include "err.h"

#define BUS_ENTRIES_MAX 128

/* `off` is relative to the entry; `len` is 1, 2, 4 or 8 and off + len is inside the entry. */
typedef void bus_read_fn(void *owner, u64 off, void *data, unsigned len);
typedef void bus_write_fn(void *owner, u64 off, const void *data, unsigned len);

struct bus_entry {
	u64 base, len;
	bus_read_fn *read;   /* data is preset to all ones */
	bus_write_fn *write;
	void *owner;
	bool lockless;
};

struct bus {
	struct bus_entry entry[BUS_ENTRIES_MAX];
	unsigned n;
	bool sealed;
};

/* Copies `entry`. Fails with -ENOSPC (table full) or -EEXIST (overlap), naming the address. */
int bus_add(struct bus *bus, const struct bus_entry *entry, struct err *err) MUST_CHECK;

/* Sorts; from here on only bus_find(). */
void bus_seal(struct bus *bus);

/* Any thread after bus_seal(). NULL: a hole. */
const struct bus_entry *bus_find(const struct bus *bus, u64 addr, unsigned len);

#endif
