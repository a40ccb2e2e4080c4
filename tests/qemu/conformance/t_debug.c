/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Debug registers, single step and exceptions across a switch (pitfall 17).
 */
#include "lib.h"

/* ---- debug registers (17) ---- */
static u64 watched __attribute__((aligned(8)));
static volatile u64 db_dr6, db_count, db_rip;
static void db_handler(struct regs *r)
{
    db_dr6 = read_dr6();
    db_rip = r->rip;
    db_count++;
    write_dr6(0xffff0ff0);
    r->rflags |= 0x10000;           /* RF: go on behind an execution breakpoint */
    r->rflags &= ~0x100ul;
}
static void __attribute__((noinline)) breakpoint_here(void) { asm volatile("nop" ::: "memory"); }

/* Values only. */
TEST(dr, "dr", "at", 1)
{
    write_dr0(0x1000), write_dr1(0x2008), write_dr2(0x3010), write_dr3(0x4018);
    write_dr6(0xffff0ff0 | 0x4000);
    write_dr7(0x400 | 0x100);
    u64 d6 = read_dr6(), d7 = read_dr7();
    at("dr");
    check(read_dr0() == 0x1000, "dr0", read_dr0(), 0x1000);
    check(read_dr1() == 0x2008, "dr1", read_dr1(), 0x2008);
    check(read_dr2() == 0x3010, "dr2", read_dr2(), 0x3010);
    check(read_dr3() == 0x4018, "dr3", read_dr3(), 0x4018);
    check(read_dr6() == d6, "dr6", read_dr6(), d6);
    check(read_dr7() == d7, "dr7", read_dr7(), d7);
    write_dr7(0x400);
}
/* They fire. */
TEST(dr_fire, "dr-fire", "at", 1)
{
    handlers[1] = db_handler;
    db_count = 0;
    write_dr6(0xffff0ff0);
    write_dr0((u64)breakpoint_here);
    write_dr1((u64)&watched);
    write_dr7(0x400 | 2 | 8 | 1ul << 20 | 3ul << 22);      /* G0: execute; G1: write, 4 bytes */
    at("dr-fire");
    breakpoint_here();
    check(db_count == 1, "breakpoints hit", db_count, 1);
    check((db_dr6 & 0xf) == 1, "dr6 of the breakpoint", db_dr6 & 0xf, 1);
    check(db_rip == (u64)breakpoint_here, "rip of the breakpoint", db_rip, (u64)breakpoint_here);
    *(volatile u32 *)&watched = 5;
    check(db_count == 2, "watchpoints hit", db_count, 2);
    check((db_dr6 & 0xf) == 2, "dr6 of the watchpoint", db_dr6 & 0xf, 2);
    (void)*(volatile u32 *)&watched;
    check(db_count == 2, "hits after a read", db_count, 2);
    /* Switched off here, they must not fire after the next switch. */
    write_dr7(0x400);
    at("dr-fire off");
    breakpoint_here();
    *(volatile u32 *)&watched = 6;
    check(db_count == 2, "hits after switching off", db_count, 2);
    write_dr7(0x400);
}
/* Single step: TF is set over the wait; every instruction of a block gives one #DB. */
TEST(single_step, "single-step", "storm", 1)
{
    u64 rounds = 0;
    static volatile u64 steps;
    handlers[1] = 0;
    storm("single-step");
    while (!stop_requested()) {
        extern void step_handler(struct regs *);
        db_count = 0;
        handlers[1] = step_handler;
        asm volatile("pushfq; orq $0x100, (%%rsp); popfq\n .rept 200\n nop\n .endr\n pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
        handlers[1] = 0;
        steps = db_count;
        /* 200 nops, pushfq, andq, popfq */
        check(steps == 203, "single steps", steps, 203);
        rounds++;
        progress(rounds);
    }
    note("rounds %lu", rounds);
}
void step_handler(struct regs *r);
void step_handler(struct regs *r)
{
    (void)r;
    if (!(read_dr6() & 0x4000)) {
        fail("dr6 of a single step is %lx", read_dr6());
    }
    write_dr6(0xffff0ff0);
    db_count++;
}

/* ---- exceptions under random switches ---- */
TEST(exceptions, "exceptions", "storm", 1)
{
    u64 rounds = 0, v = 0;
    play_pt[0x50] &= ~1ul;
    invlpg(PLAY + 0x50000);
    storm("exceptions");
    while (!stop_requested()) {
        for (int i = 0; i < 50; i++) {
            u64 va = PLAY + 0x50000 + 8 * (i & 63);
            TRY("mov (%1), %0", "+r"(v), "r"(va));
            check(exc.vec == 14 && exc.cr2 == va && exc.err == 0, "read of an absent page: cr2", exc.cr2, va);
            TRY("mov %0, (%1)", , ARGS("r"(v), "r"(va + 4)));
            check(exc.vec == 14 && exc.cr2 == va + 4 && exc.err == 2, "write of an absent page: cr2", exc.cr2, va + 4);
            TRY("ud2", , );
            check(exc.vec == 6, "ud2", exc.vec, 6);
            u32 a = 1, d = 0;
            TRY("divl %2", ARGS("+a"(a), "+d"(d)), "r"(0));
            check(exc.vec == 0, "division by zero", exc.vec, 0);
            TRY("mov %0, %%ds", , "r"(0x7b8));
            check(exc.vec == 13 && exc.err == 0x7b8, "bad selector: error code", exc.err, 0x7b8);
        }
        rounds++;
        progress(rounds);
    }
    play_pt[0x50] |= 1;
    invlpg(PLAY + 0x50000);
    note("rounds %lu", rounds);
}
