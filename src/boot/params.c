/*
 * params: see params.h. Writes only below LAYOUT_SYSTEM, where no kernel is loaded.
 *
 * Two ways in:
 *
 *  - Linux, 64 bits (Documentation/arch/x86/boot.rst, "64-bit boot protocol"): long mode, the first
 *    GiB mapped onto itself, CS 0x10, DS 0x18, rsi = zero page.
 *  - PVH (Xen, docs/misc/pvh.pandoc): 32-bit protected mode without paging, flat segments, rbx =
 *    start info. The structures are Xen's public ones,
 * xen/include/public/arch-x86/hvm/start_info.h.
 */
#include "params.h"

#include <asm/bootparam.h>

#define E820_RAM      1
#define E820_RESERVED 2

#define MAP_MAX (2 + MEM_REGIONS_MAX) /* low RAM, system area, and each region's RAM */

#define CR0_PE	 0x1u
#define CR0_ET	 0x10u
#define CR0_PG	 0x80000000u
#define CR4_PAE	 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define RFLAGS_1 0x2u /* the bit that is always set */

#define PTE_TABLE 0x03u /* present, writable */
#define PTE_2M	  0x83u /* and a 2 MiB page */

#define SEL_CODE 0x10 /* __BOOT_CS */
#define SEL_DATA 0x18 /* __BOOT_DS */

#define PVH_MAGIC 0x336ec578u

struct pvh_start_info {
	u32 magic;
	u32 version;
	u32 flags;
	u32 n_modules;
	u64 modules;
	u64 cmdline;
	u64 rsdp;
	u64 memmap; /* this and what follows: version 1 */
	u32 memmap_entries;
	u32 reserved;
};
static_assert(sizeof(struct pvh_start_info) == 56, "hvm_start_info");

struct pvh_module {
	u64 addr;
	u64 size;
	u64 cmdline;
	u64 reserved;
};
static_assert(sizeof(struct pvh_module) == 32, "hvm_modlist_entry");

struct pvh_memmap {
	u64 addr;
	u64 size;
	u32 type;
	u32 reserved;
};
static_assert(sizeof(struct pvh_memmap) == 24, "hvm_memmap_table_entry");

static_assert(sizeof(struct boot_params) == 4096, "zero page");
static_assert(LAYOUT_PVH_START_INFO + sizeof(struct pvh_start_info) <= LAYOUT_PVH_MODULES, "fits");
static_assert(LAYOUT_ZERO_PAGE + sizeof(struct boot_params) <= LAYOUT_BOOT_STACK, "fits");

static int put(const struct mem *mem, u64 gpa, const void *from, u64 len, struct err *err)
{
	void *to = mem_at(mem, gpa, len);

	if (!to)
		return fail(err, -EINVAL, "no guest memory at 0x%llx for boot structures",
			    (unsigned long long)gpa);
	memcpy(to, from, len);
	return 0;
}

/* RAM and what is not, as a BIOS would say it. The MMIO hole is left out: not RAM, not reserved. */
static unsigned memory_map(const struct mem *mem, struct boot_e820_entry map[MAP_MAX])
{
	unsigned n = 0;

	map[n++] = (struct boot_e820_entry){ 0, LAYOUT_SYSTEM, E820_RAM };
	map[n++] = (struct boot_e820_entry){ LAYOUT_SYSTEM, LAYOUT_SYSTEM_END - LAYOUT_SYSTEM,
					     E820_RESERVED };
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *r = &mem->region[i];
		u64 from = MAX(r->gpa, (u64)LAYOUT_SYSTEM_END), end = r->gpa + r->size;

		if (end > from)
			map[n++] = (struct boot_e820_entry){ from, end - from, E820_RAM };
	}
	return n;
}

static int write_zero_page(const struct params *p, const struct mem *mem, struct err *err)
{
	struct boot_params zp = { .acpi_rsdp_addr = p->rsdp };
	struct setup_header *h = &zp.hdr;

	memcpy(h, p->image->setup_header, MIN(p->image->setup_header_len, sizeof *h));
	if (!p->image->setup_header_len) {
		/* An ELF kernel has no header to copy: what a loader of protocol 2.15 would pass.
		 */
		h->boot_flag = 0xaa55;
		h->header = 0x53726448;
		h->version = 0x20f;
		h->loadflags = 1;
		h->kernel_alignment = 0x1000000;
		h->cmdline_size = LAYOUT_CMDLINE_MAX - 1;
	}
	h->type_of_loader = 0xff; /* none of the registered ones */
	h->setup_data = 0;
	h->cmd_line_ptr = LAYOUT_CMDLINE;
	h->ramdisk_image = (u32)p->initrd; /* below MEM_HOLE_START, so 32 bits do */
	h->ramdisk_size = (u32)p->initrd_size;
	zp.e820_entries = (u8)memory_map(mem, zp.e820_table);
	return put(mem, LAYOUT_ZERO_PAGE, &zp, sizeof zp, err);
}

static int write_start_info(const struct params *p, const struct mem *mem, struct err *err)
{
	struct boot_e820_entry map[MAP_MAX];
	struct pvh_memmap memmap[MAP_MAX] = { 0 };
	struct pvh_module module = { .addr = p->initrd, .size = p->initrd_size };
	struct pvh_start_info info = {
		.magic = PVH_MAGIC,
		.version = 1,
		.n_modules = p->initrd_size ? 1 : 0,
		.modules = p->initrd_size ? LAYOUT_PVH_MODULES : 0,
		.cmdline = LAYOUT_CMDLINE,
		.rsdp = p->rsdp,
		.memmap = LAYOUT_PVH_MEMMAP,
		.memmap_entries = memory_map(mem, map),
	};
	int r;

	for (unsigned i = 0; i < info.memmap_entries; i++) {
		memmap[i].addr = map[i].addr;
		memmap[i].size = map[i].size;
		memmap[i].type = map[i].type;
	}
	r = put(mem, LAYOUT_PVH_START_INFO, &info, sizeof info, err);
	if (r >= 0 && info.n_modules)
		r = put(mem, LAYOUT_PVH_MODULES, &module, sizeof module, err);
	if (r >= 0)
		r = put(mem, LAYOUT_PVH_MEMMAP, memmap, sizeof memmap, err);
	return r;
}

/* Three pages: one entry each in the upper two, 512 pages of 2 MiB in the lowest: 1 GiB. */
static int write_page_tables(const struct mem *mem, struct err *err)
{
	u64 *tables = mem_at(mem, LAYOUT_PML4, LAYOUT_PD + 4096 - LAYOUT_PML4);
	u64 *pd;

	static_assert(LAYOUT_PDPT == LAYOUT_PML4 + 4096 && LAYOUT_PD == LAYOUT_PDPT + 4096,
		      "the three are neighbours");
	if (!tables)
		return fail(err, -EINVAL, "no guest memory for page tables");
	tables[0] = LAYOUT_PDPT | PTE_TABLE;
	tables[512] = LAYOUT_PD | PTE_TABLE;
	pd = &tables[1024];
	for (u64 i = 0; i < 512; i++)
		pd[i] = (i << 21) | PTE_2M;
	return 0;
}

/* Descriptors as the protocol numbers them; the registers below say the same. */
static int write_gdt(const struct mem *mem, struct err *err)
{
	static const u64 gdt[] = {
		0, 0, 0x00af9b000000ffff, /* SEL_CODE: 64-bit, execute/read */
		0x00cf93000000ffff,	  /* SEL_DATA: flat, read/write */
	};

	static_assert(LAYOUT_GDT + sizeof gdt <= LAYOUT_IDT, "fits");
	return put(mem, LAYOUT_GDT, gdt, sizeof gdt, err);
}

static struct kvm_segment flat(u16 selector, u8 type)
{
	return (struct kvm_segment){
		.limit = UINT32_MAX,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
}

static void set_segments(struct kvm_sregs *s, bool long_mode)
{
	s->cs = flat(SEL_CODE, 0xb); /* execute/read, accessed */
	s->cs.l = long_mode;
	s->cs.db = !long_mode;
	s->ds = flat(SEL_DATA, 0x3); /* read/write, accessed */
	s->es = s->fs = s->gs = s->ss = s->ds;
	/* A busy TSS, which the processor wants to see; nothing is ever switched to it. */
	s->tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
	s->ldt = (struct kvm_segment){ .unusable = 1 };
}

static void set_registers_64(const struct params *p, struct vcpu_state *state)
{
	struct kvm_sregs *s = &state->sregs;

	state->regs = (struct kvm_regs){
		.rip = p->image->entry,
		.rsi = LAYOUT_ZERO_PAGE,
		.rsp = LAYOUT_BOOT_STACK,
		.rbp = LAYOUT_BOOT_STACK,
		.rflags = RFLAGS_1,
	};
	set_segments(s, true);
	s->gdt = (struct kvm_dtable){ .base = LAYOUT_GDT, .limit = LAYOUT_IDT - LAYOUT_GDT - 1 };
	s->idt = (struct kvm_dtable){ .base = LAYOUT_IDT, .limit = 7 };
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
	s->cr2 = 0;
	s->cr3 = LAYOUT_PML4;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
}

/* pvh.pandoc: all other bits of cr0 and cr4 are clear, paging is off, GDT and IDT unspecified. */
static void set_registers_pvh(const struct params *p, struct vcpu_state *state)
{
	struct kvm_sregs *s = &state->sregs;

	state->regs = (struct kvm_regs){
		.rip = p->image->entry,
		.rbx = LAYOUT_PVH_START_INFO,
		.rflags = RFLAGS_1,
	};
	set_segments(s, false);
	s->gdt = (struct kvm_dtable){ 0 };
	s->idt = (struct kvm_dtable){ 0 };
	s->cr0 = CR0_PE | CR0_ET;
	s->cr2 = 0;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
}

int params_write(const struct params *params, const struct mem *mem, struct vcpu_state *state,
		 struct err *err)
{
	int r;

	if (params->image->how == BOOT_ENTRY_PVH) {
		set_registers_pvh(params, state);
		return write_start_info(params, mem, err);
	}
	set_registers_64(params, state);
	r = write_zero_page(params, mem, err);
	if (r >= 0)
		r = write_page_tables(mem, err);
	if (r >= 0)
		r = write_gdt(mem, err);
	return r;
}
