/*
 * wake: a guest that says so when it has become another machine.
 *
 * Its command line is a number: so many MiB from 16 MiB on get a written word in each page first. Then
 * it says "~", and again whenever the VM generation id is another one: with its first instructions
 * after a load. Entered by its PVH note: 32-bit, no paging.
 */
	.set	GENERATION, 0xdf000	/* boot/layout.h */
	.set	CMDLINE, 24		/* hvm_start_info: cmdline_paddr */
	.set	FIRST, 0x1000000

	.code32
	.text
	.globl	_start
_start:
	movl	CMDLINE(%ebx), %esi
	xorl	%ecx, %ecx
	xorl	%eax, %eax
digit:
	movb	(%esi), %al
	subb	$'0', %al
	cmpb	$9, %al
	ja	fill
	imull	$10, %ecx
	addl	%eax, %ecx
	incl	%esi
	jmp	digit
fill:
	shll	$8, %ecx		/* MiB to pages */
	jz	say
	movl	$FIRST, %edi
page:
	movl	%edi, (%edi)
	addl	$4096, %edi
	decl	%ecx
	jnz	page
say:
	movl	GENERATION, %ebp
	movb	$'~', %al
	movw	$0x3f8, %dx
	outb	%al, %dx
	movb	$'\n', %al
	outb	%al, %dx
wait:
	pause
	cmpl	%ebp, GENERATION
	je	wait
	jmp	say

	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
