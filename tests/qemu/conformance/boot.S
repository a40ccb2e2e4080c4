/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * From the multiboot entry to 64-bit C, the same for application processors, the interrupt stubs, and the
 * waiting loop which the harness switches in. What is tested does not belong here.
 */
    .set STACK_SIZE, 0x4000
    .set CPUS, 8

    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .code32
    .globl _start
_start:
    cli
    movl %ebx, mbi
    movl $stacks + STACK_SIZE, %esp
    lgdt gdt_ptr32
    call enter_long
    ljmp $0x08, $1f

enter_long:
    movl %cr4, %eax
    orl $(1 << 5 | 1 << 9 | 1 << 10), %eax      /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $(1 << 8 | 1), %eax                     /* LME, SCE */
    wrmsr
    movl %cr0, %eax
    andl $~(1 << 2 | 1 << 3 | 1 << 29 | 1 << 30), %eax
    orl $(1 << 31 | 1 << 16 | 1 << 5 | 1 << 1 | 1), %eax   /* PG, WP, NE, MP, PE */
    movl %eax, %cr0
    ret

    .code64
1:  xorl %edi, %edi
    jmp cpu_start

ap_entry64:
    movl $1, %edi
    lock xaddl %edi, ap_next(%rip)
    incl %edi
    movl %edi, %eax
    incl %eax
    imull $STACK_SIZE, %eax, %eax
    leaq stacks(%rax), %rsp

cpu_start:                                      /* edi: CPU index */
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    lidt idt_ptr(%rip)
    fninit
    call cpu_main
0:  cli
    hlt
    jmp 0b

/* Real-mode entry of application processors, copied to 0x8000. */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (ap_gdt_ptr - ap_trampoline)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x18, $ap_entry32
    .align 4
ap_gdt_ptr:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:
    .code32
ap_entry32:
    movw $0x20, %ax
    movw %ax, %ds
    movw %ax, %ss
    /* No stack yet that is this processor's own: enter_long without call. */
    movl %cr4, %eax
    orl $(1 << 5 | 1 << 9 | 1 << 10), %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $(1 << 8 | 1), %eax
    wrmsr
    movl %cr0, %eax
    andl $~(1 << 2 | 1 << 3 | 1 << 29 | 1 << 30), %eax
    orl $(1 << 31 | 1 << 16 | 1 << 5 | 1 << 1 | 1), %eax
    movl %eax, %cr0
    ljmp $0x08, $ap_entry64
    .code64

/* Interrupts: 256 stubs of 16 bytes. */
    .align 16
    .globl isr_stubs
isr_stubs:
    .set v, 0
    .rept 256
    .align 16
    .if (v == 8) || (v >= 10 && v <= 14) || v == 17 || v == 21
    .else
    pushq $0
    .endif
    pushq $v
    jmp isr_common
    .set v, v + 1
    .endr

isr_common:
    cld
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    call isr
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq

/*
 * Ends the announcement of a point with its newline and waits for the harness, changing no register and no
 * arithmetic flag (mov, in, out, loop, jrcxz). wait_kind: 0 polls the UART, 1 spins on memory with interrupts
 * on, 2 halts. Kinds 1 and 2 leave with interrupts off.
 */
    .globl at_nf, wait_nf_spin, wait_nf_poll
at_nf:
    pushq %rax
    pushq %rcx
    pushq %rdx
    movw $0x3f8, %dx
    movb $'\n', %al
    outb %al, %dx
    movl wait_kind(%rip), %ecx
    jrcxz wait_nf_poll
    sti
    loop 3f
wait_nf_spin:
    movl rx_ready(%rip), %ecx
    jrcxz wait_nf_spin
    cli
    jmp 9f
3:  cli
    movl rx_ready(%rip), %ecx
    jrcxz 4f
    jmp 9f
4:  sti
    hlt
    jmp 3b
wait_nf_poll:
    movw $0x3fd, %dx
1:  inb %dx, %al
    movzbl %al, %ecx
    movzbl lsr_bit0(%rcx), %ecx
    jrcxz 1b
    movw $0x3f8, %dx
    inb %dx, %al
    movb %al, rx_byte(%rip)
9:  popq %rdx
    popq %rcx
    popq %rax
    ret

/* Ring 3. enter_user(rip, rsp, rflags) returns with the value that the user code had in rax at `int $0x80`. */
    .globl enter_user, leave_user
enter_user:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, user_return(%rip)
    pushq $0x3b
    pushq %rsi
    pushq %rdx
    pushq $0x43
    pushq %rdi
    iretq
leave_user:                                     /* rdi: value */
    movq user_return(%rip), %rsp
    movq %rdi, %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* A system call that counts: rdi is added to syscall_sum. */
    .globl syscall_entry
syscall_entry:
    movq %rsp, syscall_rsp(%rip)
    movq syscall_stack(%rip), %rsp
    addq %rdi, syscall_sum(%rip)
    movq syscall_rsp(%rip), %rsp
    sysretq

    .data
    .globl gdt, gdt_end, gdt_ptr, idt_ptr, tss_desc, spare_desc
    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 08 kernel code 64 */
    .quad 0x00cf93000000ffff    /* 10 kernel data */
    .quad 0x00cf9b000000ffff    /* 18 kernel code 32 */
    .quad 0x00cf93000000ffff    /* 20 kernel data 32 */
    .quad 0x00cf93000000ffff    /* 28 data for the segment tests */
    .quad 0x00cffb000000ffff    /* 30 user code 32 (sysret) */
    .quad 0x00cff3000000ffff    /* 38 user data */
    .quad 0x00affb000000ffff    /* 40 user code 64 */
    .quad 0                     /* 48 */
tss_desc:                       /* 50 + 16 * cpu */
    .fill 16, 8, 0
spare_desc:                     /* d0 + 8 * n: for tests */
    .fill 6, 8, 0
gdt_end:
gdt_ptr:
    .word gdt_end - gdt - 1
    .quad gdt
    .align 4
gdt_ptr32:
    .word gdt_end - gdt - 1
    .long gdt
    .align 8
idt_ptr:
    .word 4095
    .quad idt

/* 4 GiB identity-mapped with 2 MiB pages, the last one uncached; 4 to 6 MiB with 4 KiB pages to play with. */
    .align 4096
    .globl pml4, play_pt
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad pd + 7, pd + 0x1000 + 7, pd + 0x2000 + 7, pd + 0x3000 + 7
    .fill 508, 8, 0
pd:
    .quad 0x000083, 0x200083, play_pt + 7
    .set a, 0x600000
    .rept 509 + 1024
    .quad a + 0x83
    .set a, a + 0x200000
    .endr
    .rept 512
    .quad a + 0x9b
    .set a, a + 0x200000
    .endr
play_pt:
    .set a, 0x400000
    .rept 512
    .quad a + 3
    .set a, a + 0x1000
    .endr

lsr_bit0:
    .rept 128
    .byte 0, 1
    .endr

    .bss
    .align 4096
    .globl stacks, mbi, user_return, syscall_sum, syscall_stack, idt
stacks: .skip STACK_SIZE * CPUS
idt: .skip 4096
user_return: .skip 8
syscall_sum: .skip 8
syscall_rsp: .skip 8
syscall_stack: .skip 8
mbi: .skip 4
    .globl ap_next
ap_next: .skip 4
    .section .note.GNU-stack, "", @progbits
