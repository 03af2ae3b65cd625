/*
 * vm_freeze: a machine's RAM stops changing, and the machine goes on (vm.h).
 *
 * KVM moves a region by taking its slot away and giving it back at another address; every page that
 * the guest touches afterwards is a fault, and a copy if it writes. The old mapping is taken apart
 * after the machine runs again, a slice at a time, because that costs as much as there are pages.
 */
#include "vm_parts.h"

#include "log.h"

#include <sys/mman.h>

#define SLICE MIB(16)

/* The next slice of what nobody looks at any more. */
static void retire(void *owner)
{
	struct vm *vm = owner;
	struct mem *old = &vm->retired;

	for (unsigned i = 0; i < old->n_regions; i++) {
		struct mem_region *r = &old->region[i];
		u64 len = MIN(r->size, SLICE);

		if (!len)
			continue;
		munmap(r->host, len);
		r->host += len;
		r->size -= len;
		if (!r->size)
			r->host = NULL;
		loop_call(vm->loop, &vm->retire_work);
		return;
	}
	mem_destroy(old);
}

static void retire_all(struct vm *vm)
{
	loop_uncall(vm->loop, &vm->retire_work);
	mem_destroy(&vm->retired);
}

void vm_freeze_init(struct vm *vm)
{
	vm->retire_work = (struct loop_work){ .run = retire, .owner = vm };
}

void vm_freeze_destroy(struct vm *vm)
{
	retire_all(vm);
}

void vm_base_is_saved(struct vm *vm)
{
	vm->mem.saved = true;
}

int vm_freeze(struct vm *vm, bool alone, struct err *err)
{
	struct mem next;
	int r;

	assert(vm->paused);
	retire_all(vm); /* of a freeze just before */
	r = mem_freeze(&vm->mem, &next, alone, err);
	if (r < 0)
		return r;
	r = kvm_move_memory(&vm->shell->kvm, &vm->mem, &next, err);
	if (r < 0) {
		mem_destroy(&next);
		return r;
	}
	vm->retired = vm->mem;
	vm->mem = next;
	for (unsigned i = 0; i < vm->n_devices && !r; i++)
		r = device_remap(vm->device[i], err);
	loop_call(vm->loop, &vm->retire_work);
	return r;
}
