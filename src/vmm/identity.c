/* identity: see identity.h. */
#include "identity.h"

#include "../boot/layout.h"

#include <stdatomic.h>
#include <sys/random.h>

#define GENERATION_LEN 16

#define CLOCK_MAGIC   0x4b4c4356 /* "VCLK" */
#define CLOCK_VERSION 1

#define COUNTER_INVALID	  0xff
#define STATUS_UNKNOWN	  0
#define FLAG_GENERATION	  (1ull << 8) /* there is a generation counter */
#define FLAG_NOTIFICATION (1ull << 9) /* every change is told by an interrupt */

/* struct vmclock_abi; what is not named stays zero, because it describes a time we do not give. */
struct vm_clock {
	u32 magic, size;
	u16 version;
	u8 counter_id, time_type;
	u32 sequence; /* odd while the rest is being changed */
	u64 disruption_marker;
	u64 flags;
	u8 pad[2];
	u8 status;
	u8 time[69];
	u64 generation_counter;
};
static_assert(sizeof(struct vm_clock) == 112, "the layout of version 1");
static_assert(offsetof(struct vm_clock, sequence) == 12, "the layout of version 1");
static_assert(offsetof(struct vm_clock, status) == 34, "the layout of version 1");
static_assert(offsetof(struct vm_clock, generation_counter) == 104, "the layout of version 1");

static int no_memory(struct err *err)
{
	return fail(err, -EINVAL, "no guest memory for a VM generation id");
}

static int new_generation(const struct mem *mem, struct err *err)
{
	void *at = mem_at(mem, LAYOUT_VMGENID, GENERATION_LEN);
	u8 id[GENERATION_LEN];

	if (!at)
		return no_memory(err);
	if (getrandom(id, sizeof id, 0) != sizeof id)
		return fail(err, -EIO, "cannot make a VM generation id: " OS_ERR,
			    OS_ERR_ARGS(errno));
	memcpy(at, id, sizeof id);
	return 0;
}

static void set_clock(struct vm_clock *clock, u32 sequence, u64 marker, u64 generation)
{
	WRITE_ONCE(clock->sequence, sequence | 1);
	atomic_thread_fence(memory_order_release); /* with the guest's loads of the sequence */
	*clock = (struct vm_clock){
		.magic = CLOCK_MAGIC,
		.size = LAYOUT_VMCLOCK_LEN,
		.version = CLOCK_VERSION,
		.counter_id = COUNTER_INVALID,
		.sequence = sequence | 1,
		.disruption_marker = marker,
		.flags = FLAG_GENERATION | FLAG_NOTIFICATION,
		.status = STATUS_UNKNOWN,
		.generation_counter = generation,
	};
	atomic_thread_fence(memory_order_release);
	WRITE_ONCE(clock->sequence, (sequence | 1) + 1);
}

int identity_create(const struct mem *mem, struct err *err)
{
	struct vm_clock *clock = mem_at(mem, LAYOUT_VMCLOCK, LAYOUT_VMCLOCK_LEN);

	if (!clock)
		return no_memory(err);
	set_clock(clock, 0, 0, 0);
	return new_generation(mem, err);
}

int identity_renew(const struct mem *mem, struct err *err)
{
	struct vm_clock *clock = mem_at(mem, LAYOUT_VMCLOCK, LAYOUT_VMCLOCK_LEN);

	if (!clock)
		return no_memory(err);
	set_clock(clock, READ_ONCE(clock->sequence), READ_ONCE(clock->disruption_marker) + 1,
		  READ_ONCE(clock->generation_counter) + 1);
	return new_generation(mem, err);
}
