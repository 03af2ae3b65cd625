/*
 * start: the first instructions of every guest, on the boot processor and on the others.
 *
 * Two ways in: the 64-bit entry of the Linux boot protocol (zero page in rsi), and, when built with
 * PVH defined, the 32-bit entry of a PVH note (start info in ebx). Both end in guest_main() with our
 * own stack, segments and page tables: nothing of the monitor's boot structures is used for longer
 * than it takes to read it.
 *
 * Only plain integer instructions: some hosts interpret the guest and do not know many others.
 */

#define GUEST_PAGES 6		/* GiB that are mapped one to one */
#define EFER	    0xc0000080
#define AP_BASE	    0x8000	/* where processors start: page 8, real mode */

	.section .text.start, "ax"

#ifdef PVH
	.code32
	.globl _start
_start:
	cld
	cli
	movl	%ebx, %edi		/* first argument of guest_main, kept until then */
	movl	$1, %ebp		/* second argument: how we were entered */
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$EFER, %ecx
	rdmsr
	orl	$0x100, %eax		/* LME */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax	/* PG, PE */
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmpl	$8, $start_64

	.section .note.pvh, "a", @note
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
	.section .text.start, "ax"
	.code64
#else
	.code64
	.globl _start
_start:
	cld
	/* What the boot protocol promises about the state is kept for a guest that checks it. */
	movq	%cr0, %rax
	movq	%rax, entry_cr0
	movq	%cr3, %rax
	movq	%rax, entry_cr3
	movq	%cr4, %rax
	movq	%rax, entry_cr4
	movq	%rsp, entry_rsp
	movq	$stack_top, %rsp
	pushfq
	popq	%rax
	movq	%rax, entry_rflags
	cli
	movl	$EFER, %ecx
	rdmsr
	movl	%eax, entry_efer
	movq	%rsi, %rdi
	xorl	%ebp, %ebp
	movq	$pml4, %rax
	movq	%rax, %cr3
	lgdt	gdt_pointer
	movq	$stack_top, %rsp
	pushq	$8
	pushq	$start_64
	lretq
#endif

start_64:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	movq	$stack_top, %rsp
	movl	%edi, %edi
	movl	%ebp, %esi
	call	guest_main
1:	cli
	hlt
	jmp	1b

/*
 * Interrupts: the handler counts, ends the interrupt and goes on at irq_resume with the stack of
 * the interrupted code. It does not return: interrupts are only let in at one known place
 * (guest_wait), and IRET is among the instructions that interpreting hosts lack.
 */
	.balign	16
	.globl	irq_stubs
irq_stubs:
	count = 0
	.rept	64
	.balign	16
	incl	irq_count + count
	jmp	irq_common
	count = count + 4
	.endr

irq_common:
	movl	$0xfee000b0, %eax	/* rax is free: irq_window() is a function */
	movl	$0, (%rax)		/* EOI */
	movq	24(%rsp), %rsp		/* past the frame: the interrupted stack pointer */
	jmp	*irq_resume

/* Waits for one interrupt. Returns after it; rdi: whether to halt, else only open the window. */
	.globl	irq_window
irq_window:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	$2f, irq_resume
	testl	%edi, %edi
	jz	1f
	sti
	hlt
	jmp	2f
1:	sti
	nop
	nop
2:	cli
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/* The other processors: copied to AP_BASE, started there in real mode by INIT and SIPI. */
	.globl	ap_begin, ap_end
	.code16
ap_begin:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	AP_BASE + ap_gdt_pointer - ap_begin
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$24, $AP_BASE + ap_32 - ap_begin

	.code32
ap_32:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %ss
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$EFER, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	ljmpl	$8, $ap_64

	.balign	8
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_end:

	.code64
ap_64:
	movl	$16, %eax
	movl	%eax, %es
	movl	%eax, %fs
	movl	%eax, %gs
	/* A ticket decides which stack: numbers of processors need not be dense. */
	movl	$1, %edi
	lock xaddl %edi, ap_tickets
	movl	%edi, %eax
	shll	$12, %eax
	leaq	ap_stacks + 4096(%rax), %rsp
	call	ap_main
1:	cli
	hlt
	jmp	1b

	.data
	.balign	8
	.globl	entry_cr0, entry_cr3, entry_cr4, entry_rsp, entry_rflags, entry_efer
entry_cr0:	.quad	0
entry_cr3:	.quad	0
entry_cr4:	.quad	0
entry_rsp:	.quad	0
entry_rflags:	.quad	0
entry_efer:	.quad	0
irq_resume:	.quad	0
	.globl	ap_tickets
ap_tickets:	.long	1

	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/*  8: 64-bit code */
	.quad	0x00cf93000000ffff	/* 16: data */
	.quad	0x00cf9b000000ffff	/* 24: 32-bit code, on the way up */
gdt_end:
	.globl	gdt_pointer
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt

/* Page tables are data, not code: no instruction is spent on making them. */
	.section .data.pages, "aw"
	.balign	4096
pml4:	.quad	pdpt + 3
	.fill	511, 8, 0
pdpt:	page = 0
	.rept	GUEST_PAGES
	.quad	pds + page + 3
	page = page + 4096
	.endr
	.fill	512 - GUEST_PAGES, 8, 0
pds:	page = 0x83
	.rept	GUEST_PAGES * 512
	.quad	page
	page = page + 0x200000
	.endr

	.bss
	.balign	4096
	.skip	16384
stack_top:
	.globl	ap_stacks
ap_stacks:
	.skip	32 * 4096
