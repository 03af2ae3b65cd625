/*
 * layout: the guest's physical address space, drawn once. Every fixed address in the monitor is one
 * of these names; no other file spells one.
 *
 *	0x0000_0000  real mode left-overs, unused
 *	0x0000_0500  GDT, IDT                    \
 *	0x0000_6000  PVH start info, module list  | boot structures: written by boot/ before
 *	0x0000_7000  zero page or PVH memory map  | the first instruction, the kernel's afterwards
 *	0x0000_8ff0  boot stack (grows down)      |
 *	0x0000_9000  page tables (three pages)    |
 *	0x0002_0000  command line                /
 *	0x0009_fc00  -- RAM ends, "system area": reserved in e820 --
 *	0x0009_fc00  MP floating pointer (searched for in the last KiB below 640 KiB)
 *	0x000a_0000  ACPI tables, VM clock, VM generation id
 *	0x000e_0000  RSDP (searched for from here to 1 MiB), MP configuration table behind it
 *	0x0010_0000  -- RAM: kernel from here up, initrd at the top of this region --
 *	0xc000_0000  -- RAM ends (MEM_HOLE_START) --
 *	0xc000_0000  boot timer page, then virtio-mmio windows of 4 KiB each
 *	0xfec0_0000  IOAPIC
 *	0xfee0_0000  local APICs (in the kernel)
 *	0xfffb_c000  identity map page and TSS that KVM wants on Intel
 *	0x1_0000_0000 -- RAM goes on (MEM_HOLE_END) --
 *
 * Addresses that guests and tools have come to know from Firecracker are the same here.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

/* Boot structures */
#define LAYOUT_GDT	      0x500
#define LAYOUT_IDT	      0x520
#define LAYOUT_PVH_START_INFO 0x6000
#define LAYOUT_PVH_MODULES    0x6040
#define LAYOUT_ZERO_PAGE      0x7000
#define LAYOUT_PVH_MEMMAP     0x7000
#define LAYOUT_BOOT_STACK     0x8ff0
#define LAYOUT_PML4	      0x9000
#define LAYOUT_PDPT	      0xa000
#define LAYOUT_PD	      0xb000
#define LAYOUT_CMDLINE	      0x20000
#define LAYOUT_CMDLINE_MAX    2048	 /* bytes, with the terminator */
#define LAYOUT_MAPPED	      0x40000000 /* the page tables map [0, here) onto itself */

/* System area */
#define LAYOUT_SYSTEM	    0x9fc00
#define LAYOUT_MPTABLE	    0x9fc00
#define LAYOUT_ACPI	    0xa0000
#define LAYOUT_ACPI_END	    0xde000
#define LAYOUT_VMCLOCK	    0xde000 /* one page */
#define LAYOUT_VMCLOCK_LEN  0x1000
#define LAYOUT_VMGENID	    0xdf000 /* one page: 16 bytes of generation id */
#define LAYOUT_RSDP	    0xe0000
#define LAYOUT_MPCONFIG	    0xe0100 /* with 32 processors and 38 pins it outgrows the KiB above */
#define LAYOUT_MPCONFIG_END 0xe1000
#define LAYOUT_SYSTEM_END   0x100000

#define LAYOUT_KERNEL 0x100000

/* Memory-mapped devices */
#define LAYOUT_BOOT_TIMER  0xc0000000
#define LAYOUT_VIRTIO	   0xc0001000 /* first window; the others follow */
#define LAYOUT_VIRTIO_STEP 0x1000
#define LAYOUT_VIRTIO_HID  "LNRO0005" /* by which Linux knows such a window in the DSDT */
#define LAYOUT_IOAPIC	   0xfec00000
#define LAYOUT_LAPIC	   0xfee00000
#define LAYOUT_KVM_IDENT   0xfffbc000
#define LAYOUT_KVM_TSS	   0xfffbd000

/* Ports */
#define LAYOUT_PORT_I8042      0x60
#define LAYOUT_PORT_I8042_CMD  0x64
#define LAYOUT_PORT_SERIAL     0x3f8
#define LAYOUT_PORT_ACPI_SLEEP 0x600 /* sleep control register (hardware-reduced ACPI) */
#define LAYOUT_PORT_ACPI_WAKE  0x601 /* sleep status register */
#define LAYOUT_PORT_ACPI_RESET 0x602 /* reset register */

/* Values the tables announce and the ports understand */
#define LAYOUT_ACPI_S5_TYPE	5
#define LAYOUT_ACPI_RESET_VALUE 1

/* Interrupt lines (GSI = IOAPIC pin) */
#define LAYOUT_GSI_KEYBOARD    1
#define LAYOUT_GSI_SERIAL      4
#define LAYOUT_GSI_IDENTITY    5 /* the machine has become another one: VM generation id, VM clock */
#define LAYOUT_GSI_VIRTIO      6  /* first virtio device; the others follow */
#define LAYOUT_DEVICES_MAX     32 /* virtio devices of one machine */
#define LAYOUT_IOAPIC_PINS_MAX (LAYOUT_GSI_VIRTIO + LAYOUT_DEVICES_MAX)

#endif
