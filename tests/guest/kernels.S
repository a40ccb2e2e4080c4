/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loops that keep every register of a kind alive all the time, so that a
 * register lost at any instant changes the result.  The floating-point loops
 * iterate chaotic maps: one wrong bit becomes a wrong result.
 * Only operations that IEEE 754 defines to the last bit are used (no sine).
 *
 * Each takes the number of iterations in %rdi and the place of the result in
 * %rsi, and mixes in a fault word from memory that is neutral unless a fault
 * is injected.
 */
    .intel_syntax noprefix

    .data
    .balign 32
    .global hc_fault_int, hc_fault_sse2, hc_fault_avx, hc_fault_x87
hc_fault_avx:   .quad 0, 0, 0, 0
hc_fault_sse2:  .quad 0, 0
hc_fault_int:   .quad 0
hc_fault_x87:   .double 1.0

    .section .rodata
    .balign 32
growth_pd:  .double 3.987, 3.991, 3.979, 3.993
one_pd:     .double 1.0, 1.0, 1.0, 1.0
growth_ps:  .float 3.98, 3.99, 3.97, 3.96
one_ps:     .float 1.0, 1.0, 1.0, 1.0
start_pd:   .double 0.11, 0.13, 0.17, 0.19, 0.23, 0.29, 0.31, 0.37
            .double 0.41, 0.43, 0.47, 0.53, 0.59, 0.61, 0.67, 0.71
            .double 0.73, 0.79, 0.83, 0.89, 0.12, 0.14, 0.18, 0.21
            .double 0.24, 0.28, 0.32, 0.38, 0.42, 0.44, 0.48, 0.54
            .double 0.57, 0.62, 0.68, 0.72, 0.74, 0.78, 0.82, 0.88
            .double 0.16, 0.15, 0.22, 0.26, 0.27, 0.33, 0.34, 0.36
start_ps:   .float 0.31, 0.37, 0.41, 0.43
square_minus: .double 1.953125
/* Rounding up, all exceptions masked: neither is what a fresh CPU has. */
mxcsr_up:   .long 0x5f80
fcw_up:     .word 0x0b7f

    .text

/* void hc_kernel_int(uint64_t iterations, uint64_t *result) */
    .global hc_kernel_int
    .type hc_kernel_int, @function
hc_kernel_int:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rsi
    mov rax, 0x0123456789abcdef
    mov rbx, 0x1111111122222223
    mov rcx, 0x3333333344444445
    mov rdx, 0x5555555566666667
    mov rsi, 0x7777777788888889
    mov rbp, 0x99999999aaaaaaab
    mov r8,  0xbbbbbbbbcccccccd
    mov r9,  0xddddddddeeeeeeef
    mov r10, 0x0f1e2d3c4b5a6979
    mov r11, 0x123456789abcdef1
    mov r12, 0x23456789abcdef12
    mov r13, 0x3456789abcdef123
    mov r14, 0x456789abcdef1234
    mov r15, 0x56789abcdef12345
1:
    add rax, rbx                /* a chain through the carry flag */
    adc rcx, rdx
    adc rsi, rbp
    adc r8, r9
    adc r10, r11
    adc r12, r13
    adc r14, r15
    adc rbx, rax
    rol rdx, 7
    ror rbp, 11
    imul r9, r9, 0x5851f42d
    xor r9, rcx
    lea r11, [r11 + r8 * 4 + 1]
    bswap r13
    xor r13, rsi
    xor r15, [rip + hc_fault_int]
    push r15
    push rdx
    mov rax, r15
    mul r14                     /* 128-bit product */
    xor rbx, rdx
    mov r15, rbx
    or r15, 0x10001
    xor edx, edx
    div r15                     /* 64-bit quotient and remainder */
    add rbp, rdx
    pop rdx
    pop r15
    btc rdx, rax
    adc r15, rax
    shld r14, r12, 5
    cmp r8, r10
    cmovb r11, rbp
    dec rdi
    jnz 1b
    rol rbx, 1
    xor rax, rbx
    rol rcx, 2
    xor rax, rcx
    rol rdx, 3
    xor rax, rdx
    rol rsi, 4
    xor rax, rsi
    rol rbp, 5
    xor rax, rbp
    xor r8, r9
    rol r8, 6
    xor rax, r8
    xor r10, r11
    rol r10, 7
    xor rax, r10
    xor r12, r13
    rol r12, 8
    xor rax, r12
    xor r14, r15
    rol r14, 9
    xor rax, r14
    pop rsi
    mov [rsi], rax
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .size hc_kernel_int, . - hc_kernel_int

/* x = growth * x * (1 - x) in register \x, with \t as scratch */
    .macro logistic_pd x, t
    movapd \t, xmm15
    subpd \t, \x
    mulpd \x, xmm14
    mulpd \x, \t
    .endm

/* void hc_kernel_sse2(uint64_t iterations, uint8_t result[16 * 16]) */
    .global hc_kernel_sse2
    .type hc_kernel_sse2, @function
hc_kernel_sse2:
    sub rsp, 8
    stmxcsr [rsp]
    ldmxcsr [rip + mxcsr_up]
    lea rax, [rip + start_pd]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    movapd xmm\n, [rax + 16 * \n]
    .endr
    movaps xmm11, [rip + start_ps]
    movaps xmm12, [rip + one_ps]
    movapd xmm14, [rip + growth_pd]
    movapd xmm15, [rip + one_pd]
1:
    .irp n, 0, 1, 2, 3, 4
    logistic_pd xmm\n, xmm13
    .endr
    shufpd xmm0, xmm0, 1        /* the halves change places */
    movaps xmm13, xmm12
    subps xmm13, xmm11
    mulps xmm11, [rip + growth_ps]
    mulps xmm11, xmm13
    sqrtpd xmm13, xmm1
    divpd xmm13, xmm15
    pxor xmm5, xmm13            /* from here on integers */
    paddq xmm6, xmm5
    pmuludq xmm7, xmm6
    pshufd xmm7, xmm7, 0x39
    paddd xmm7, xmm2
    psllq xmm8, 3
    pxor xmm8, xmm7
    punpcklbw xmm9, xmm8
    paddb xmm9, xmm6
    pxor xmm10, xmm9
    psrlq xmm10, 1
    paddw xmm10, xmm3
    pxor xmm4, [rip + hc_fault_sse2]
    dec rdi
    jnz 1b
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups [rsi + 16 * \n], xmm\n
    .endr
    stmxcsr [rsp + 4]
    mov eax, [rsp + 4]
    and eax, 0xffc0             /* control bits: still rounding up? */
    xor [rsi + 16 * 13], eax
    ldmxcsr [rsp]
    add rsp, 8
    ret
    .size hc_kernel_sse2, . - hc_kernel_sse2

/* void hc_kernel_avx(uint64_t iterations, uint8_t result[16 * 32]) */
    .global hc_kernel_avx
    .type hc_kernel_avx, @function
hc_kernel_avx:
    lea rax, [rip + start_pd]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    vmovapd ymm\n, [rax + 32 * \n]
    .endr
    vmovapd ymm14, [rip + growth_pd]
    vmovapd ymm15, [rip + one_pd]
    vxorpd ymm12, ymm12, ymm12
1:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    vsubpd ymm13, ymm15, ymm\n
    vmulpd ymm\n, ymm\n, ymm14
    vmulpd ymm\n, ymm\n, ymm13
    .endr
    vxorpd ymm12, ymm12, ymm13
    vperm2f128 ymm0, ymm0, ymm0, 1
    vxorpd ymm0, ymm0, [rip + hc_fault_avx]
    dec rdi
    jnz 1b
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovupd [rsi + 32 * \n], ymm\n
    .endr
    vzeroupper
    ret
    .size hc_kernel_avx, . - hc_kernel_avx

/*
 * void hc_kernel_x87(uint64_t iterations, uint8_t result[8 * 10])
 * All eight registers are in use and the top of the stack moves with every
 * iteration, so that each of the eight rotations is there to be caught.
 */
    .global hc_kernel_x87
    .type hc_kernel_x87, @function
hc_kernel_x87:
    sub rsp, 8
    fnstcw [rsp]
    fninit
    fldcw [rip + fcw_up]
    lea rax, [rip + start_pd]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    fld qword ptr [rax + 8 * \n]
    .endr
1:
    fmul st(0), st(0)           /* x = x * x - c */
    fsub qword ptr [rip + square_minus]
    fmul qword ptr [rip + hc_fault_x87]
    fxch st(3)
    fincstp
    dec rdi
    jnz 1b
    fnstcw [rsp + 4]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    fstp tbyte ptr [rsi + 10 * \n]
    .endr
    mov ax, [rsp + 4]
    xor [rsi], ax               /* control word: still rounding up? */
    fninit
    fldcw [rsp]
    add rsp, 8
    ret
    .size hc_kernel_x87, . - hc_kernel_x87

    .section .note.GNU-stack, "", @progbits
