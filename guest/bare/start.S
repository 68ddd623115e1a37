/*
 * Entry, the way to CPL 3, the tables for both, and the traps back into CPL 0.
 *
 * Everything executed at CPL 0 (and in real mode) is in this file, and it is as little as
 * possible: some hosts interpret it a thousand times slower than CPL 3 (README.md says why).
 * The boot CPU and the others go through the same code; what differs between them is in the
 * boot_* variables, which main.c sets before it starts another CPU.
 */
#include "layout.h"

	.section .note.Xen, "a", @note
	.balign 4
	.long	4, 4, 18			/* name size, value size, PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start32

	.text
	.code32
	.globl	start32
start32:					/* ebx: hvm_start_info; flat segments, paging off */
	mov	$SERIAL_PORT, %edx
	mov	$'b', %al			/* the first byte of "bare 1": as early as can be */
	out	%al, %dx
	mov	%ebx, boot_start_info

	mov	$0x40000000, %eax		/* kvmclock tells the TSC's frequency, if there is one */
	cpuid
	cmp	$0x4b4d564b, %ebx		/* "KVMK" */
	jne	enter
	mov	$0x40000001, %eax
	cpuid
	test	$8, %al				/* KVM_FEATURE_CLOCKSOURCE2 */
	jz	enter
	mov	$0x4b564d01, %ecx		/* MSR_KVM_SYSTEM_TIME_NEW */
	mov	$clock_page + 1, %eax
	xor	%edx, %edx
	wrmsr

enter:						/* every CPU: protected mode to long mode */
	lgdt	gdtr
	mov	$0x620, %eax			/* PAE, OSFXSR, OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$page_map, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx		/* EFER.LME */
	mov	$0x100, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80000011, %eax		/* PG, ET, PE */
	mov	%eax, %cr0
	ljmp	$KERNEL_CS, $start64

	.code64
start64:
	ltr	boot_task
	lidt	idtr
	mov	$0x174, %ecx			/* SYSENTER_CS: the base SYSEXIT counts from */
	mov	$KERNEL_CS, %eax
	xor	%edx, %edx
	wrmsr
	mov	boot_kernel_stack, %rsp
	mov	boot_argument, %rdi
	mov	boot_stack, %rcx
	mov	boot_function, %rdx
to_user:					/* CPL 3 at rdx with the stack rcx; rdi is kept */
	push	$USER_FLAGS
	popfq
	sysexitq				/* where that is no instruction (AMD): trap 6, below */

/*
 * Traps 0..31 and the interrupt that ends idling. Three of them have a meaning, the rest is a
 * bug in this guest or in the machine under it and is reported from CPL 3, by fault().
 *
 * On the stack: rax rcx vector error rip cs rflags rsp ss
 */
	.balign	16
	.globl	traps
traps:
	.set	vector, 0
	.rept	33
	.balign	16
	.if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21))
	push	$0
	.endif
	push	$vector
	jmp	trap
	.set	vector, vector + 1
	.endr

	.balign	16
trap:
	push	%rcx
	push	%rax
	mov	16(%rsp), %eax
	cmp	$IDLE_VECTOR, %eax
	je	wake
	cmp	$6, %eax
	jne	1f
	testb	$3, 40(%rsp)
	jz	return_by_iret
1:	cmp	$13, %eax
	jne	report
	mov	32(%rsp), %rax
	cmpb	$0xf4, (%rax)			/* hlt at CPL 3 is meant */
	je	idle
report:
	mov	%cr2, %rax
	push	%rax
	mov	%rsp, %rdi
	mov	$fault, %edx
	mov	$fault_stack_end - 8, %ecx
	jmp	to_user

return_by_iret:					/* trap 6 at CPL 0 is the sysexit in to_user */
	mov	8(%rsp), %rcx
	push	$USER_SS
	push	%rcx
	push	$USER_FLAGS
	push	$USER_CS
	push	%rdx
	iretq

/*
 * hlt at CPL 3 comes here as a general protection fault and sleeps for the program, until the
 * one interrupt it may have enabled. Outside of here the task priority keeps that one pending,
 * so that it can neither be missed nor arrive anywhere else. It may clobber rax, rcx, rdx.
 */
idle:
	mov	$LAPIC_BASE, %ecx
	movl	$0, LAPIC_TPR(%rcx)
	sti
1:	hlt
	jmp	1b
wake:
	mov	$LAPIC_BASE, %ecx
	movl	$0, LAPIC_EOI(%rcx)
	movl	$0xff, LAPIC_TPR(%rcx)
	mov	56(%rsp), %rsp			/* back to the frame of the hlt */
	mov	32(%rsp), %rdx
	inc	%rdx				/* after it */
	mov	56(%rsp), %rcx
	jmp	to_user

/* Other CPUs: from INIT and SIPI to the common way */
	.globl	trampoline, trampoline_end
	.code16
trampoline:					/* copied to TRAMPOLINE: a CPU starts here, cs:0000 */
	cli
	lgdtl	%cs:trampoline_gdtr - trampoline
	mov	$0x11, %eax
	mov	%eax, %cr0
	ljmpl	$KERNEL_CS32, $start_other
trampoline_gdtr:
	.word	gdt_end - gdt - 1
	.long	gdt
trampoline_end:

	.code32
start_other:
	mov	$KERNEL_SS, %eax
	mov	%eax, %ds
	mov	%eax, %ss
	jmp	enter

	.data
	.balign	8
	.globl	boot_start_info, boot_task, boot_kernel_stack, boot_argument, boot_stack, boot_function
boot_kernel_stack:	.quad kernel_stack_end
boot_stack:		.quad user_stack_end - 8
boot_argument:		.quad 0
boot_function:		.quad main
boot_start_info:	.long 0
boot_task:		.word FIRST_TASK

	.balign	8
	.word	0, 0, 0
idtr:	.word	idt_end - idt - 1
	.quad	idt
	.word	0, 0, 0
gdtr:	.word	gdt_end - gdt - 1
	.quad	gdt

	.balign	16
	.globl	gdt, idt, idt_end
gdt:	.quad	0
	.quad	0x00af9b000000ffff		/* 08 KERNEL_CS; SYSEXIT finds USER_CS 32 above it */
	.quad	0x00cf93000000ffff		/* 10 KERNEL_SS */
	.quad	0x00cf9b000000ffff		/* 18 KERNEL_CS32 */
	.quad	0
	.quad	0x00affb000000ffff		/* 28 USER_CS */
	.quad	0x00cff3000000ffff		/* 30 USER_SS */
	.quad	boot_task_descriptor, 0		/* 38 FIRST_TASK, the boot CPU's */
	.fill	(MAX_CPUS - 1) * 2, 8, 0	/* the others', by cpus.c */
gdt_end:

	.balign	16
idt:	.set	vector, 0
	.rept	33
	.quad	trap_gate + vector * 16, 0
	.set	vector, vector + 1
	.endr
idt_end:

/*
 * The boot CPU's. Ports below PORTS_ALLOWED are free to CPL 3, besides by IOPL 3: kvm_pvm does not
 * know the one, and QEMU's TCG forgets the other once KVM_SET_SREGS has loaded TR as busy.
 */
	.balign	16
	.globl	boot_tss, boot_tss_end
boot_tss:
	.long	0
	.quad	kernel_stack_end
	.skip	90
	.word	104				/* where the port bitmap is */
	.skip	PORTS_ALLOWED / 8
	.byte	0xff
boot_tss_end:

/*
 * Page tables. Here only the first GiB, as large user pages at their own addresses; memory.c adds
 * the rest of RAM from CPL 3.
 */
	.section .data.tables, "aw"
	.globl	page_map, page_directories
	.balign	4096
page_map:
	.quad	page_directories + PAGE_USER
	.fill	511, 8, 0
page_directories:
	.quad	first_gib + PAGE_USER
	.fill	511, 8, 0
first_gib:
	.set	address, 0
	.rept	512
	.quad	address + PAGE_USER + PAGE_LARGE
	.set	address, address + 0x200000
	.endr

	.section .stacks, "aw", @nobits
	.balign	4096
	.skip	512
kernel_stack_end:
	.skip	1536
fault_stack_end:
	.skip	6144
user_stack_end:

	.section .note.GNU-stack, "", @progbits
