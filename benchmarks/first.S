/*
 * first: a guest that says so with its first instructions, and halts.
 *
 * Entered by its PVH note: 32-bit, no paging, so that nothing has to be set up before the first
 * write. The boot timer (for monitors that have one) comes first, then one line on the serial port.
 */
	.code32
	.text
	.globl	_start
_start:
	movb	$123, 0xc0000000
	movb	$'~', %al
	movw	$0x3f8, %dx
	outb	%al, %dx
	movb	$'\n', %al		/* the end of a line: monitors may hold back the pieces of one */
	outb	%al, %dx
1:	cli
	hlt
	jmp	1b

	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
