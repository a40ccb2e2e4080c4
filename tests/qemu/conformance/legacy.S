/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Out of long mode and back, and what the tests of t_task.c run there: 32-bit tasks with paging (PAE), and real mode.
 * Everything is mapped to itself and below 4 GiB, interrupts are off, waiting polls the UART.
 */
    .set COM1, 0x3f8
    .set SPARE, 0xd0
    .set SEL_TASK_A, SPARE + 8 * 0
    .set SEL_TASK_B, SPARE + 8 * 1
    .set SEL_CODE16, SPARE + 8 * 3
    .set SEL_DATA16, SPARE + 8 * 4
    .set SEL_BIG, SPARE + 8 * 5
    .set LOW, 0x9000            /* where real_mode is copied to */
    .set CR0_PE, 1
    .set CR0_TS, 8
    .set CR0_PG, 1 << 31

/* legacy_run(u32 entry): calls entry in 32-bit protected mode without paging. */
    .text
    .code64
    .globl legacy_run
legacy_run:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, long_rsp(%rip)
    movl %edi, %ebx
    pushq $0x18
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
    .code32
1:  movl $0x20, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl long_rsp, %esp
    movl %cr0, %eax
    andl $~CR0_PG, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $~(1 << 8), %eax                       /* LME */
    wrmsr
    lidt idt32_ptr
    call *%ebx
    movl %cr0, %eax
    andl $~(CR0_PG | CR0_TS), %eax
    movl %eax, %cr0
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $(1 << 8), %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    ljmp $0x08, $2f
    .code64
2:  lidt idt_ptr(%rip)
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq long_rsp(%rip), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .code32
/* Announces the point at esi and waits for the harness. */
point32:
    pushal
    cld
    movl $COM1, %edx
1:  movb $0x20, %ah
    addl $5, %edx
2:  inb %dx, %al
    testb %ah, %al
    jz 2b
    subl $5, %edx
    lodsb
    testb %al, %al
    jz 3f
    outb %al, %dx
    jmp 1b
3:  addl $5, %edx
4:  inb %dx, %al
    testb $1, %al
    jz 4b
    subl $5, %edx
    inb %dx, %al
    popal
    ret
    .macro POINT text
    pushl %esi
    movl $9f, %esi
    call point32
    popl %esi
    .pushsection .rodata
9:  .asciz "AT \text\n"
    .popsection
    .endm

/* An exception that no test here expects: the harness knows the word. */
    .globl trap32
trap32:
    movl $1f, %esi
    call point32
    hlt
    .pushsection .rodata
1:  .asciz "\nCRASH exception outside of long mode\n"
    .popsection

/* Appends eflags, the general registers, TR, CR0, CR3, fs:0 and a word of the address space to task_log (16 words). */
log_state:
    pushfl
    pushal
    movl task_log_at, %edi
    movl %esp, %esi
    movl $9, %ecx
    cld
    rep movsl
    xorl %eax, %eax
    str %eax
    stosl
    movl %cr0, %eax
    stosl
    movl %cr3, %eax
    stosl
    movl %fs:0, %eax
    stosl
    movl 0x464000, %eax
    stosl
    movb spare_desc + 5, %al                    /* types of both TSS descriptors */
    movb spare_desc + 13, %ah
    movzwl %ax, %eax
    stosl
    movl %cr4, %eax
    stosl
    movl %edi, task_log_at
    popal
    popfl
    ret

    .globl task_a, task_b, task_log_at
task_a:
    movl $SEL_TASK_A, %eax
    ltr %ax
    movl task_cr3, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    movl $0x20, %eax
    movl %eax, %fs
    movl %eax, %gs
    POINT "task-switch in the first"
    movl $0xa0000001, %eax
    movl $0xa0000002, %ebx
    movl $0xa0000003, %ecx
    movl $0xa0000004, %edx
    movl $0xa0000005, %esi
    movl $0xa0000006, %edi
    movl $0xa0000007, %ebp
    cmpl $0, task_flags_late
    jne 2f
    stc
    std
    jmp 1f                                      /* an emulator has the flags by now */
1:  ljmp $SEL_TASK_B, $0
    jmp 3f
2:  stc                                         /* an emulator may put them off until somebody asks */
    std
    ljmp $SEL_TASK_B, $0
3:  call log_state                              /* 1: back by the second's jump */
    cld
    clts
    POINT "task-switch back in the first"
    movl $0xaa000001, %eax
    lcall $SEL_TASK_B, $0
    call log_state                              /* 3: back by iret */
    clts
    POINT "task-switch after iret"
    movl $0xaaa00001, %eax
    int $0x40                                   /* a task gate */
    call log_state                              /* 5 */
    clts
    ret
task_b:
    call log_state                              /* 0: as its TSS has it */
    clts
    POINT "task-switch in the second"
    movl $0xb1111111, %eax
    movl $0xb2222222, %ebx
    ljmp $SEL_TASK_A, $0
    call log_state                              /* 2: called, nested */
    clts
    POINT "task-switch nested"
    iret
    call log_state                              /* 4: by the task gate */
    clts
    POINT "task-switch by a gate"
    iret
    hlt

/* PAE paging: from one set of page-directory pointers to another, a word of each address space before and after a point. */
    .globl pae_run
pae_run:
    movl task_cr3, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    movl task_log_at, %edi
    POINT "pae first"
    movl 0x464000, %eax
    stosl
    movl other_cr3, %eax
    movl %eax, %cr3
    movl 0x464000, %eax
    stosl
    POINT "pae second"
    movl 0x464000, %eax
    stosl
    movl task_cr3, %eax
    movl %eax, %cr3
    movl 0x464000, %eax
    stosl
    ret

/* Real mode, with a segment whose base and limit no real-mode instruction could load. */
    .globl real_run, real_mode, real_mode_end
real_run:
    movl $SEL_BIG, %eax
    movl %eax, %fs
    movl %esp, real_esp
    ljmp $SEL_CODE16, $LOW
real_back:
    movl $0x20, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl real_esp, %esp
    lidt idt32_ptr
    ret

    .code16
real_mode:
    movl $SEL_DATA16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %gs
    lidtl LOW + (ivt_ptr - real_mode)
    movl %cr0, %eax
    andl $~CR0_PE, %eax
    movl %eax, %cr0
    ljmp $0, $LOW + (1f - real_mode)
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $LOW, %sp
    movw $0x0a00, %ax
    movw %ax, %es                               /* base 0xa000 */
    movl $0xfeed0001, %ebx
    movw $COM1, %dx
    movb $'\n', %al
    outb %al, %dx
    stc
    movw $COM1 + 5, %dx
2:  inb %dx, %al
    testb $1, %al
    jz 2b
    movw $COM1, %dx
    inb %dx, %al
    .set OUT, LOW + (real_out - real_mode)
    movl %ebx, OUT
    movl %fs:0, %eax                            /* the base is still there */
    movl %eax, OUT + 4
    movl $0x100000, %ecx
    addr32 movl %fs:(%ecx), %eax                /* and the limit */
    movl %eax, OUT + 8
    movl %es:0, %eax
    movl %eax, OUT + 12
    movw %es, %ax
    movw %ax, OUT + 16
    int $0x60                                   /* by the table at 0 */
    movl %ebp, OUT + 20
    movl %cr0, %eax
    movl %eax, OUT + 24
    orl $CR0_PE, %eax
    movl %eax, %cr0
    ljmpl $0x18, $real_back
real_int:
    movl $0x60606060, %ebp
    iretw
    .align 4
ivt_ptr:
    .word 0x3ff
    .long 0
    .align 4
    .globl real_out, real_int
real_out:
    .skip 28
real_mode_end:
    .code64

    .data
    .globl idt32_ptr
    .align 4
idt32_ptr:
    .word 0x41 * 8 - 1
    .long idt32
    .bss
    .align 8
    .globl idt32, task_cr3, other_cr3, task_flags_late
idt32: .skip 0x41 * 8
long_rsp: .skip 8
real_esp: .skip 4
task_cr3: .skip 4
other_cr3: .skip 4
task_log_at: .skip 4
task_flags_late: .skip 4
    .section .note.GNU-stack, "", @progbits
