/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Protection across a switch (pitfalls 2, 10): paging bits, CR0.TS, ring 3 and its ports.
 */
#include "lib.h"

/* ---- protection (10) ---- */
static u32 feature7(void)
{
    u32 r[4];
    cpuid(7, 0, r);
    return r[1];
}
static u32 feature7c(void)
{
    u32 r[4];
    cpuid(7, 0, r);
    return r[2];
}
TEST(smap, "smap", "at", 1)
{
    volatile u64 *page = (u64 *)user_program(user_null, user_null_end);
    u64 v = 0, code = *page;
    if (!(feature7() & 1 << 20)) {
        note("no SMAP");
        return;
    }
    write_cr4(read_cr4() | 1 << 21);
    at("smap");
    TRY("mov (%1), %0", "+r"(v), "r"(page));
    check(exc.vec == 14 && exc.cr2 == (u64)page, "exception of a supervisor read of a user page", exc.vec, 14);
    asm volatile("stac");
    TRY("mov (%1), %0", "+r"(v), "r"(page));
    check(exc.vec == -1 && v == code, "exception with AC set", exc.vec, -1);
    at("smap with AC set");
    TRY("mov (%1), %0", "+r"(v), "r"(page));
    check(exc.vec == -1, "exception with AC set", exc.vec, -1);
    asm volatile("clac");
    TRY("mov (%1), %0", "+r"(v), "r"(page));
    check(exc.vec == 14, "exception after clac", exc.vec, 14);
    write_cr4(read_cr4() & ~(1ul << 21));
}
TEST(smep, "smep", "at", 1)
{
    u8 *page = (u8 *)user_program(user_null, user_null_end);
    if (!(feature7() & 1 << 7)) {
        note("no SMEP");
        return;
    }
    page[0] = 0xc3;
    write_cr4(read_cr4() | 1 << 20);
    at("smep");
    exc.vec = -1;
    /* The call pushes an address that the fault leaves on the stack. */
    asm volatile("mov %%rsp, %%rbx; movq $1f, fixup(%%rip); call *%0; 1: movq $0, fixup(%%rip); mov %%rbx, %%rsp"
                 :: "r"(page) : "rbx", "memory");
    check(exc.vec == 14 && exc.cr2 == (u64)page, "exception of executing a user page", exc.vec, 14);
    write_cr4(read_cr4() & ~(1ul << 20));
    at("smep off");
    exc.vec = -1;
    asm volatile("mov %%rsp, %%rbx; movq $1f, fixup(%%rip); call *%0; 1: movq $0, fixup(%%rip); mov %%rbx, %%rsp"
                 :: "r"(page) : "rbx", "memory");
    check(exc.vec == -1, "exception with SMEP off", exc.vec, -1);
}
TEST(umip, "umip", "at", 1)
{
    if (!(feature7c() & 1 << 2)) {
        note("no UMIP");
        return;
    }
    write_cr4(read_cr4() | 1 << 11);
    at("umip");
    u64 a = enter_user(user_program(user_sidt, user_sidt_end), USER_STACK, 2);
    check(a == 0x10d, "sidt in ring 3", a, 0x10d);
    a = enter_user(user_program(user_smsw, user_smsw_end), USER_STACK, 2);
    check(a == 0x10d, "smsw in ring 3", a, 0x10d);
    write_cr4(read_cr4() & ~(1ul << 11));
    at("umip off");
    a = enter_user(user_program(user_sidt, user_sidt_end), USER_STACK, 2);
    check(a == 0xbad, "sidt in ring 3 with UMIP off", a, 0xbad);
}
/* Write protection, no-execute and their change. */
TEST(paging_bits, "wp-nx", "at", 1)
{
    u64 va = PLAY + 0x40000, v = 1;
    volatile u64 *pte = &play_pt[0x40];
    *(u8 *)va = 0xc3;
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1 << 11);
    *pte = (*pte & ~2ul) | 1ul << 63;
    invlpg(va);
    at("wp-nx");
    TRY("mov %0, (%1)", , ARGS("r"(v), "r"(va)));
    check(exc.vec == 14 && (exc.err & 3) == 3, "write to a read-only page", exc.vec, 14);
    exc.vec = -1;
    asm volatile("mov %%rsp, %%rbx; movq $1f, fixup(%%rip); call *%0; 1: movq $0, fixup(%%rip); mov %%rbx, %%rsp" :: "r"(va) : "rbx", "memory");
    check(exc.vec == 14 && (exc.err & 0x10), "executing a no-execute page", exc.vec, 14);
    write_cr0(read_cr0() & ~(1ul << 16));
    at("wp-nx with CR0.WP=0");
    TRY("mov %0, (%1)", , ARGS("r"(v), "r"(va)));
    check(exc.vec == -1, "write with CR0.WP=0", exc.vec, -1);
    write_cr0(read_cr0() | 1 << 16);
    *pte = (*pte & ~(1ul << 63)) | 2;
    invlpg(va);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~(1ul << 11));
}
/* CR0.TS: the first FPU instruction faults. */
TEST(cr0_ts, "cr0-ts", "at", 1)
{
    write_cr0(read_cr0() | 8);
    at("cr0-ts");
    TRY("fld1", , );
    check(exc.vec == 7, "fld1 with TS", exc.vec, 7);
    TRY("movups %%xmm0, %%xmm1", , );
    check(exc.vec == 7, "movups with TS", exc.vec, 7);
    asm volatile("clts");
    TRY("fld1; fstp %%st(0)", , );
    check(exc.vec == -1, "fld1 without TS", exc.vec, -1);
}

/* ---- ring 3 ---- */
/* I/O permission bitmap over a switch, in ring 3 (pitfall 2). The wait itself uses the ports. */
TEST(ring3_io, "ring3-io", "at", 1)
{
    io_allow(COM1, 8, 1);
    io_allow(0x61, 1, 1);
    printf("AT ring3-io");
    u64 code = user_program(user_io, user_io_end);
    u64 a = enter_user(code, USER_STACK, 2);
    check(a == 0x10d, "denied port in ring 3", a, 0x10d);
    check(exc.rip == code + (user_io_denied - user_io), "rip of the fault (an allowed port was refused?)", exc.rip,
          code + (user_io_denied - user_io));
    io_allow(0x61, 1, 0);
    io_allow(COM1, 8, 0);
}
/* ---- which ports ring 3 may use: the bitmap, its end, IOPL ---- */
#define ANSWER 0x600d
#define DENIED 0x10d            /* #GP */
static u64 user_in(u16 port, u32 width, u64 flags)
{
    u64 code = user_program(user_port, user_port_end);
    ((volatile u32 *)(code + 0x800))[0] = port;
    ((volatile u32 *)(code + 0x800))[1] = width;
    return enter_user(code, USER_STACK, flags);
}
/* TR is loaded again with another limit: the bitmap ends there. */
static void limit_tss(u32 limit)
{
    tss_desc[0] = (tss_desc[0] & ~(0xful << 48 | 2ul << 40 | 0xffff)) | (limit & 0xffff) | (u64)(limit >> 16 & 15) << 48;
    asm volatile("ltr %w0" :: "r"(TSS_SELECTOR) : "memory");
}
static void check_ports(const char *when, int second)
{
    /* Ports 0xe1 to 0xe4, 0xe7, 0xe8 and 0x300 are allowed, 0xe5 and 0xe6 are not: they change places in the second round. */
    const struct { u16 port, width; u64 flags; u64 want; } rows[] = {
        { 0xe1, 1, 2, second ? DENIED : ANSWER }, { 0xe4, 1, 2, second ? DENIED : ANSWER }, { 0xe5, 1, 2, second ? ANSWER : DENIED },
        { 0xe0, 1, 2, DENIED }, { 0xe1, 2, 2, second ? DENIED : ANSWER }, { 0xe1, 4, 2, second ? DENIED : ANSWER },
        { 0xe4, 2, 2, DENIED }, { 0xe5, 2, 2, second ? ANSWER : DENIED }, { 0xe3, 4, 2, DENIED },
        { 0xe7, 2, 2, ANSWER },                 /* the bits are in two bytes */
        { 0xe8, 2, 2, DENIED }, { 0xe0, 4, 0x3002, ANSWER }, { 0xe0, 1, 0x1002, DENIED },
        { 0x300, 1, 2, DENIED },                /* allowed, but beyond the limit of the TSS */
    };
    for (u32 i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        u64 got = user_in(rows[i].port, rows[i].width, rows[i].flags);
        if (got != rows[i].want) {
            fail("%s: ring 3 reading %u bytes of port %x with flags %lx is %lx, expected %lx", when, rows[i].width, rows[i].port, rows[i].flags,
                 got, rows[i].want);
        }
    }
}
static void allow_ports(int second)
{
    io_allow(0xe1, 4, !second);
    io_allow(0xe5, 2, second);
}
TEST(ioperm, "ioperm", "at", 1)
{
    u32 limit = (tss_desc[0] & 0xffff) | (tss_desc[0] >> 48 & 15) << 16;
    limit_tss(104 + 0x200 / 8);                 /* of a TSS and of ports up to 0x1ff */
    io_allow(0xe7, 2, 1);
    io_allow(0x300, 1, 1);
    for (int second = 0; second < 2; second++) {
        allow_ports(second);
        check_ports("before", second);
        at("ioperm");
        check_ports("after the switch", second);
        allow_ports(!second);
        check_ports("changed after the switch", !second);
        allow_ports(second);
    }
    io_allow(0xe1, 8, 0);
    limit_tss(limit);
    check(user_in(0x300, 1, 2) == ANSWER, "allowed port within the old limit", user_in(0x300, 1, 2), ANSWER);
    at("ioperm old limit");
    check(user_in(0x300, 1, 2) == ANSWER, "allowed port within the old limit, after the switch", user_in(0x300, 1, 2), ANSWER);
    io_allow(0x300, 1, 0);
}

/* Spinning in ring 3 at the switch, ports used only after it. */
TEST(ring3_spin, "ring3-spin", "at", 1)
{
    io_allow(COM1, 8, 1);
    io_allow(0x61, 1, 1);
    u64 code = user_program(user_spin, user_spin_end);
    user_waits = 1;
    uart_irq(1);
    printf("AT ring3-spin\n");
    u64 a = enter_user(code, USER_STACK, 0x202);
    cli();
    check(a == 0x600d, "answer of the ring-3 program", a, 0x600d);
    io_allow(0x61, 1, 0);
    io_allow(COM1, 8, 0);
}
static volatile u64 soft_count;
static void soft_handler(struct regs *r) { (void)r; soft_count++; }
/* System calls, soft interrupts and returns to ring 3 under random switches. */
TEST(ring3_storm, "ring3-storm", "storm", 1)
{
    u64 rounds = 0;
    static u8 stack[4096] __attribute__((aligned(16)));
    syscall_stack = (u64)stack + sizeof(stack);
    wrmsr(0xc0000081, 0x0030000800000000ul);
    wrmsr(0xc0000082, (u64)syscall_entry);
    wrmsr(0xc0000084, 0x47700);
    handlers[0x81] = soft_handler;
    storm("ring3-storm");
    while (!stop_requested()) {
        for (int i = 0; i < 20; i++) {
            syscall_sum = 0;
            u64 a = enter_user(user_program(user_syscalls, user_syscalls_end), USER_STACK, 2);
            check(a == 0x600d, "registers after system calls", a, 0x600d);
            check(syscall_sum == 100, "system calls", syscall_sum, 100);
            soft_count = 0;
            a = enter_user(user_program(user_ints, user_ints_end), USER_STACK, 2);
            check(a == 0x600d, "answer", a, 0x600d);
            check(soft_count == 100, "soft interrupts", soft_count, 100);
        }
        rounds++;
        progress(rounds);
    }
    handlers[0x81] = 0;
    note("rounds %lu", rounds);
}
