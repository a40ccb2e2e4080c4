/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Programs that run in ring 3, position-independent: they are copied into user pages. Each ends with `int $0x80`,
 * rax being the answer, or with the fault that the test expects.
 */
    .macro USER name
    .globl \name, \name\()_end
    .align 16
\name:
    .endm

/* Announces the point itself and polls the UART through the I/O bitmap; then a port that the bitmap denies. */
USER user_io
    movw $0x3f8, %dx
    movb $'\n', %al
    outb %al, %dx
1:  movw $0x3fd, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    movw $0x3f8, %dx
    inb %dx, %al
    movl $0x61, %edx
    inb %dx, %al
    .globl user_io_denied
user_io_denied:
    outb %al, $0x80
    movl $0xbad, %eax
    int $0x80
user_io_end:

/* Spins on a flag in its own page (set by the UART's interrupt), then reads it back with its ports. */
USER user_spin
1:  pause
    cmpl $0, 0x800 + user_spin(%rip)
    je 1b
    movl $0x61, %edx
    inb %dx, %al
    movl $0x600d, %eax
    int $0x80
user_spin_end:

/* Reads a port; number and width (1, 2 or 4) are in its own page. */
USER user_port
    movl 0x800 + user_port(%rip), %edx
    cmpl $2, 0x804 + user_port(%rip)
    je 2f
    ja 4f
    inb %dx, %al
    jmp 9f
2:  inw %dx, %ax
    jmp 9f
4:  inl %dx, %eax
9:  movl $0x600d, %eax
    int $0x80
user_port_end:

USER user_sidt
    sidt 0x800 + user_sidt(%rip)
    movl $0xbad, %eax
    int $0x80
user_sidt_end:

USER user_smsw
    smsw %ax
    movl $0xbad, %eax
    int $0x80
user_smsw_end:

USER user_null
    movl $0x600d, %eax
    int $0x80
user_null_end:

/* 100 system calls that count, checking that syscall/sysret keep the registers, then the end. */
USER user_syscalls
    movl $100, %ebx
    movq $0x1234567890abcdef, %r12
    pushfq
    popq %r13
1:  movl $1, %edi
    syscall
    cmpq %r11, %r13
    decl %ebx
    jnz 1b
    movq $0x1234567890abcdef, %rax
    cmpq %rax, %r12
    movl $0xbad, %eax
    movl $0x600d, %ecx
    cmovel %ecx, %eax
    int $0x80
user_syscalls_end:

/* A soft interrupt, whose handler returns, a hundred times. */
USER user_ints
    movl $100, %ebx
1:  int $0x81
    decl %ebx
    jnz 1b
    movl $0x600d, %eax
    int $0x80
user_ints_end:
    .section .note.GNU-stack, "", @progbits
