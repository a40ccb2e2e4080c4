/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What a local APIC may have beside the original one: the TSC-deadline timer (Intel SDM volume 3, 11.5.4.1) and x2APIC
 * mode (11.12). Both are there with irqchip on and split, with off neither.
 */
#include "lib.h"

#define MS 1000000ul
#define LVT_TIMER 0x320
#define LVT_MASKED (1 << 16)
#define LVT_DEADLINE (2 << 17)
#define MSR_TSC 0x10
#define MSR_APIC_BASE 0x1b
#define MSR_DEADLINE 0x6e0
#define X2APIC(reg) (0x800 + (reg) / 16)
#define VEC_TIMER 0x40
#define VEC_IPI 0x5a

static int has(u32 bit, const char *what)
{
    u32 r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << bit)) {
        note("no %s", what);
    }
    return r[2] >> bit & 1;
}

/* ---- TSC deadline ---- */
static volatile u32 ticks;
static volatile u64 due, tick_tsc, early;
static void timer_handler(struct regs *r)
{
    (void)r;
    tick_tsc = rdtsc();
    if (tick_tsc < due) {
        early = due - tick_tsc;
    }
    ticks++;
    apic_eoi();
}
static u64 tsc_per_ms(void)
{
    u64 h0 = hpet_ns(), t0 = rdtsc();
    wait_ns(50 * MS);
    u64 t1 = rdtsc(), h1 = hpet_ns();
    return (t1 - t0) * 1000 / ((h1 - h0) / 1000);
}
static void deadline_mode(u32 flags)
{
    handlers[VEC_TIMER] = timer_handler;
    ticks = 0;
    due = early = 0;
    apic_write(LVT_TIMER, LVT_DEADLINE | VEC_TIMER | flags);
    asm volatile("mfence");
}
static void arm(u64 after)
{
    due = rdtsc() + after;
    wrmsr(MSR_DEADLINE, due);
}
/* Interrupts on until there was a tick or the time is over, and a moment longer for those too many. */
static void wait_tick(u64 ns)
{
    u64 h0 = hpet_ns();
    sti();
    while (!ticks && hpet_ns() - h0 < ns) {
        pause();
    }
    wait_ns(5 * MS);
    cli();
}
static int timer_irr(void) { return apic_read(0x200 + 0x10 * (VEC_TIMER / 32)) >> (VEC_TIMER & 31) & 1; }

/*
 * Armed before the switch, due after it: neither early nor lost. A loaded host may be late, so that only what is late three
 * times is wrong. arg: how far away it is, in ms (600).
 */
TEST(deadline, "deadline", "at", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        return;
    }
    u64 ms = tsc_per_ms(), total = arg ? arg : 600, took = 0;
    for (int try = 0; try < 3; try++) {
        deadline_mode(0);
        arm(total * ms);
        u64 armed = due;
        wait_ns(200 * MS);
        at("deadline");
        u64 msr = rdmsr(MSR_DEADLINE);
        if (!timer_irr()) {
            check(msr == armed, "deadline after the switch", msr, armed);
        }
        wait_tick(4000 * MS);
        took = (tick_tsc - armed) / ms + total;
        check(ticks == 1, "interrupts of the deadline", ticks, 1);
        check(early == 0, "TSC ticks before the deadline", early, 0);
        check(rdmsr(MSR_DEADLINE) == 0, "deadline after it has passed", rdmsr(MSR_DEADLINE), 0);
        note("deadline after %lu ms of %lu", took, total);
        if (took < total + total / 3) {
            break;
        }
    }
    check(took < total + total / 3, "late, milliseconds", took, total);
}
/* It passes while interrupts are off, and the switch falls there: pending, delivered once. */
TEST(deadline_expired, "deadline-expired", "at", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        return;
    }
    u64 ms = tsc_per_ms();
    deadline_mode(0);
    arm(ms);
    wait_ns(30 * MS);
    at("deadline-expired");
    check(timer_irr(), "IRR bit of the timer", timer_irr(), 1);
    check(rdmsr(MSR_DEADLINE) == 0, "deadline after it has passed", rdmsr(MSR_DEADLINE), 0);
    wait_tick(1000 * MS);
    check(ticks == 1, "interrupts", ticks, 1);
}
/* A masked one passes without an interrupt. */
TEST(deadline_masked, "deadline-masked", "at", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        return;
    }
    u64 ms = tsc_per_ms();
    deadline_mode(LVT_MASKED);
    arm(20 * ms);
    at("deadline-masked");
    wait_ns(100 * MS);
    check(rdmsr(MSR_DEADLINE) == 0, "masked deadline after it has passed", rdmsr(MSR_DEADLINE), 0);
    apic_write(LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
    wait_tick(30 * MS);
    check(ticks == 0, "interrupts", ticks, 0);
}
/* Another mode of the timer disarms it, and in that the register is not there; 0 disarms it, too. */
TEST(deadline_modes, "deadline-mode", "at", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        return;
    }
    u64 ms = tsc_per_ms();
    deadline_mode(0);
    arm(50 * ms);
    apic_write(LVT_TIMER, VEC_TIMER);
    at("deadline-mode one-shot");
    check(rdmsr(MSR_DEADLINE) == 0, "deadline in one-shot mode", rdmsr(MSR_DEADLINE), 0);
    arm(20 * ms);
    check(rdmsr(MSR_DEADLINE) == 0, "deadline written in one-shot mode", rdmsr(MSR_DEADLINE), 0);
    apic_write(LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
    apic_write(0x380, 1000);                    /* ignored in this mode */
    at("deadline-mode deadline");
    check(apic_read(0x390) == 0, "current count in deadline mode", apic_read(0x390), 0);
    wait_tick(100 * MS);
    check(ticks == 0, "interrupts of a timer that was disarmed by its mode", ticks, 0);
    arm(50 * ms);
    wrmsr(MSR_DEADLINE, 0);
    at("deadline-mode zero");
    wait_tick(100 * MS);
    check(ticks == 0, "interrupts of a timer that was disarmed by 0", ticks, 0);
}
/* Who writes the TSC moves it towards the deadline. KVM's timer does not look again, so that a switch must follow there. */
TEST(deadline_tsc, "deadline-tsc", "at", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        return;
    }
    u64 ms = tsc_per_ms();
    deadline_mode(0);
    arm(60000 * ms);
    wrmsr(MSR_TSC, due - 100 * ms);
    at("deadline-tsc");
    wait_tick(10000 * MS);
    check(ticks == 1, "interrupts within 10 s", ticks, 1);
    check(early == 0, "TSC ticks before the deadline", early, 0);
}
/* Short deadlines, waited for in hlt and in a loop: each comes once, and none before its time. */
TEST(deadline_storm, "deadline-storm", "storm", 1)
{
    if (!has(24, "TSC-deadline timer")) {
        storm("deadline-storm");
        while (!stop_requested()) {
            progress(0);
        }
        return;
    }
    u64 ms = tsc_per_ms();
    u32 armed = 0;
    deadline_mode(0);
    storm("deadline-storm");
    while (!stop_requested()) {
        arm(ms / 16 * (armed % 48));
        armed++;
        u64 h0 = hpet_ns();
        while (ticks != armed && hpet_ns() - h0 < 10000 * MS) {
            if (armed & 1) {
                asm volatile("sti; hlt; cli" ::: "memory");
            } else {
                sti();
                pause();
                cli();
            }
        }
        if (ticks != armed) {
            fail("after deadline %u there were %u interrupts in 10 s", armed, ticks);
            break;
        }
        progress(armed);
    }
    note("deadlines %u", armed);
    check(early == 0, "TSC ticks before the deadline", early, 0);
}

/* ---- x2APIC ---- */
static volatile u32 hits;
static void x2apic_handler(struct regs *r)
{
    (void)r;
    hits++;
    wrmsr(X2APIC(0xb0), 0);
}
static void enter_x2apic(void) { wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x400); }
/* Only by way of a disabled APIC, which forgets everything. */
static void leave_x2apic(void)
{
    u64 base = rdmsr(MSR_APIC_BASE) & ~0xc00ul;
    wrmsr(MSR_APIC_BASE, base);
    wrmsr(MSR_APIC_BASE, base | 0x800);
    apic_write(0xf0, 0x1ff);
}
/* Entered in one mode, used in the other: identity, pending interrupts, task priority, timers. */
TEST(x2apic, "x2apic", "at", 1)
{
    if (!has(21, "x2APIC")) {
        return;
    }
    u64 base = rdmsr(MSR_APIC_BASE);
    hits = 0;
    handlers[VEC_IPI] = handlers[VEC_TIMER] = x2apic_handler;
    i64 vec;
    TRY("wrmsr", , ARGS("c"(MSR_APIC_BASE), "a"((u32)base | 0x400), "d"((u32)(base >> 32))));
    vec = exc.vec;
    check(vec == -1, "entering x2APIC", vec, -1);
    if (vec != -1) {
        return;
    }
    at("x2apic");
    check(rdmsr(MSR_APIC_BASE) == (base | 0x400), "APIC base", rdmsr(MSR_APIC_BASE), base | 0x400);
    u32 id = rdmsr(X2APIC(0x20)), ldr = rdmsr(X2APIC(0xd0)), logical = id >> 4 << 16 | 1u << (id & 15);
    check(id == apic_ids(0), "x2APIC id", id, apic_ids(0));
    check(ldr == logical, "logical id", ldr, logical);
    wrmsr(X2APIC(0x80), 0x60);
    wrmsr(X2APIC(0x300), (u64)id << 32 | VEC_IPI);
    at("x2apic pending");
    check(rdmsr(X2APIC(0x220)) >> (VEC_IPI & 31) & 1, "IRR bit", rdmsr(X2APIC(0x220)), 1u << (VEC_IPI & 31));
    check(rdmsr(X2APIC(0x80)) == 0x60, "task priority", rdmsr(X2APIC(0x80)), 0x60);
    check(read_cr8() == 6, "CR8", read_cr8(), 6);
    u64 icr = rdmsr(X2APIC(0x300));
    check((icr & ~0x1000ul) == ((u64)id << 32 | VEC_IPI), "interrupt command", icr, (u64)id << 32 | VEC_IPI);
    sti();
    wait_ns(2 * MS);
    check(hits == 0, "self-IPIs above the task priority", hits, 0);
    wrmsr(X2APIC(0x80), 0);
    for (u64 h0 = hpet_ns(); !hits && hpet_ns() - h0 < 1000 * MS;) {
        pause();
    }
    wrmsr(X2APIC(0x3f0), VEC_IPI);              /* self IPI */
    at("x2apic self-IPI");
    for (u64 h0 = hpet_ns(); hits < 2 && hpet_ns() - h0 < 1000 * MS;) {
        pause();
    }
    wrmsr(X2APIC(0x3e0), 0xb);
    wrmsr(X2APIC(LVT_TIMER), VEC_TIMER);
    wrmsr(X2APIC(0x380), 100 * MS);             /* counts of a nanosecond */
    at("x2apic timer");
    for (u64 h0 = hpet_ns(); hits < 3 && hpet_ns() - h0 < 3000 * MS;) {
        pause();
    }
    wait_ns(5 * MS);
    cli();
    check(hits == 3, "two self-IPIs and a timer's interrupt", hits, 3);
    leave_x2apic();
    at("x2apic left");
    check(rdmsr(MSR_APIC_BASE) == base, "APIC base at the end", rdmsr(MSR_APIC_BASE), base);
    check(apic_read(0x20) == id << 24, "xAPIC id at the end", apic_read(0x20), id << 24);
}
/* IPIs to the other processor, by its id and by its logical id: each comes, once. */
static volatile u32 ipi_stop, ipi_ready;
static void ipi_target(void)
{
    enter_x2apic();
    ipi_ready = 1;
    sti();
    while (!ipi_stop) {
        pause();
    }
    cli();
    leave_x2apic();
}
TEST(x2apic_ipi, "x2apic-ipi", "storm", 2)
{
    u32 sent = 0, id = apic_ids(1), logical = id >> 4 << 16 | 1u << (id & 15);
    int offered = has(21, "x2APIC");
    hits = ipi_stop = ipi_ready = 0;
    handlers[VEC_IPI] = x2apic_handler;
    if (offered) {
        ap_run(1, ipi_target);
        while (!ipi_ready) {
            pause();
        }
        enter_x2apic();
    }
    storm("x2apic-ipi");
    while (!stop_requested()) {
        progress(sent);
        if (!offered) {
            continue;
        }
        if (sent & 1) {
            wrmsr(X2APIC(0x300), (u64)logical << 32 | 0x800 | VEC_IPI);
        } else {
            wrmsr(X2APIC(0x300), (u64)id << 32 | VEC_IPI);
        }
        sent++;
        u64 h0 = hpet_ns();
        while (hits != sent && hpet_ns() - h0 < 10000 * MS) {
            pause();
        }
        if (hits != sent) {
            fail("after IPI %u there were %u interrupts in 10 s", sent, hits);
            break;
        }
    }
    ipi_stop = 1;
    if (offered) {
        leave_x2apic();
        ap_wait(1);
    }
    note("IPIs %u", sent);
}
