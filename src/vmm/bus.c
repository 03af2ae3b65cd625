/* bus: see bus.h. Invariant after bus_seal(): entries are sorted by base and do not overlap. */
#include "bus.h"

#include <stdlib.h>

int bus_add(struct bus *bus, const struct bus_entry *entry, struct err *err)
{
	assert(!bus->sealed && entry->len && entry->base + entry->len > entry->base);
	for (unsigned i = 0; i < bus->n; i++) {
		const struct bus_entry *e = &bus->entry[i];

		if (ranges_overlap(e->base, e->len, entry->base, entry->len))
			return fail(err, -EEXIST, "two devices claim guest address 0x%llx",
				    (unsigned long long)MAX(e->base, entry->base));
	}
	if (bus->n == ARRAY_SIZE(bus->entry))
		return fail(err, -ENOSPC, "no room for another device at guest address 0x%llx",
			    (unsigned long long)entry->base);
	bus->entry[bus->n++] = *entry;
	return 0;
}

static int by_base(const void *a, const void *b)
{
	const struct bus_entry *x = a, *y = b;

	return x->base < y->base ? -1 : x->base > y->base;
}

void bus_seal(struct bus *bus)
{
	qsort(bus->entry, bus->n, sizeof bus->entry[0], by_base);
	bus->sealed = true;
}

const struct bus_entry *bus_find(const struct bus *bus, u64 addr, unsigned len)
{
	unsigned lo = 0, hi = bus->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct bus_entry *e = &bus->entry[mid];

		if (addr < e->base)
			hi = mid;
		else if (addr - e->base >= e->len)
			lo = mid + 1;
		else
			return range_ok(addr - e->base, len, e->len) ? e : NULL;
	}
	return NULL;
}
