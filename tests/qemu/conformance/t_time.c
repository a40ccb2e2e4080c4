/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Clocks across a switch: the TSC (pitfall 13), the LAPIC timer with its remaining count (23), the PIT and the HPET.
 * The HPET is the reference: a device model that no accelerator touches.
 */
#include "lib.h"

#define MS 1000000ul

/* Both clocks at one moment: of some tries the one with the least time between two readings of the HPET. */
struct moment { u64 tsc, ns; };
static struct moment now(void)
{
    struct moment best = { 0, 0 };
    u64 width = ~0ul;
    for (int i = 0; i < 30 && width > 100000; i++) {
        u64 a = hpet_ns(), t = rdtsc(), b = hpet_ns();
        if (b - a < width) {
            width = b - a;
            best = (struct moment) { t, a + width / 2 };
        }
    }
    return best;
}
static u64 tsc_hz(u64 ns)
{
    struct moment a = now();
    wait_ns(ns);
    struct moment b = now();
    return (b.tsc - a.tsc) * 1000 / ((b.ns - a.ns) / 1000) * 1000;
}

/* The TSC goes on at the same rate and neither jumps nor turns back. arg: percent of tolerance (20). */
TEST(tsc, "tsc", "at", 1)
{
    u64 tolerance = arg ? arg : 20;
    u64 hz = tsc_hz(100 * MS);
    struct moment a = now();
    at("tsc");
    struct moment b = now();
    u64 t0 = a.tsc, h0 = a.ns, t1 = b.tsc, h1 = b.ns;
    u64 hz2 = tsc_hz(100 * MS);
    check((i64)(t1 - t0) > 0, "TSC after the switch", t1, t0);
    i64 ns = (t1 - t0) * 1000 / (hz / 1000000), jump = ns - (i64)(h1 - h0);
    note("hz %lu then %lu, jump %ld us over %lu us", hz, hz2, jump / 1000, (h1 - h0) / 1000);
    i64 d = (i64)hz2 - (i64)hz;
    check((d < 0 ? -d : d) < (i64)(hz / 100 * tolerance), "TSC frequency", hz2, hz);
    check(jump > -(i64)(200 * MS) && jump < (i64)(400 * MS), "TSC against the HPET, nanoseconds", jump, 0);
}
/* A value that the guest wrote stays. */
TEST(tsc_write, "tsc-write", "at", 1)
{
    u64 old = rdtsc(), base = old + 0x1000000000000;
    wrmsr(0x10, base);
    u64 t = rdtsc();
    check(t - base < 0x10000000000, "TSC just written", t, base);
    at("tsc-write");
    u64 t2 = rdtsc();
    check(t2 > t && t2 - t < 0x10000000000, "TSC written before the switch", t2, t);
    wrmsr(0x10, old);
}
/* Monotonic over both processors, while switches happen. */
static volatile u64 tsc_last;
static volatile u32 tsc_stop;
static u64 tsc_spins[2];
static void tsc_work(u32 cpu)
{
    u64 last = tsc_last, t = rdtsc();
    if (t < last) {
        fail("TSC went back by %lu on cpu %u", last - t, cpu);
    }
    while (t > last && !__sync_bool_compare_and_swap(&tsc_last, last, t)) {
        last = tsc_last;
    }
    tsc_spins[cpu]++;
}
static void tsc_runner(void)
{
    while (!tsc_stop) {
        tsc_work(1);
    }
}
TEST(tsc_smp, "tsc-smp", "storm", 2)
{
    tsc_last = rdtsc();
    tsc_stop = 0;
    tsc_spins[0] = tsc_spins[1] = 0;
    ap_run(1, tsc_runner);
    storm("tsc-smp");
    while (!stop_requested()) {
        for (int i = 0; i < 1000; i++) {
            tsc_work(0);
        }
        progress(tsc_spins[0]);
    }
    tsc_stop = 1;
    ap_wait(1);
    note("spins %lu %lu", tsc_spins[0], tsc_spins[1]);
}

/* ---- LAPIC timer ---- */
static volatile u32 ticks;
static volatile u64 tick_ns;
static void timer_handler(struct regs *r)
{
    (void)r;
    if (!ticks++) {
        tick_ns = hpet_ns();
    }
    apic_eoi();
}
#define APIC_HZ 1000000000ul         /* of KVM's and of QEMU's local APIC */
static u64 apic_timer_hz(void)
{
    apic_write(0x3e0, 0xb);                 /* divide by 1 */
    apic_write(0x320, 1 << 16 | 0x40);
    apic_write(0x380, 0);
    return APIC_HZ;
}
TEST(lapic_rate, "lapic-rate", "at", 1)
{
    apic_timer_hz();
    apic_write(0x380, 0xffffffff);
    for (int i = 0; i < 2; i++) {
        u64 hz = 0;
        for (int try = 0; try < 4 && !(hz > APIC_HZ / 10 * 9 && hz < APIC_HZ / 10 * 11); try++) {
            u64 h0 = hpet_ns();
            u32 c0 = apic_read(0x390);
            wait_ns(50 * MS);
            u32 c1 = apic_read(0x390);
            u64 h1 = hpet_ns();
            hz = (u64)(c0 - c1) * 1000 / ((h1 - h0) / 1000) * 1000;
        }
        check(hz > APIC_HZ / 10 * 9 && hz < APIC_HZ / 10 * 11, "counts of the timer per second", hz, APIC_HZ);
        at("lapic-rate");
    }
    apic_write(0x380, 0);
}

/*
 * One-shot, with half of the time gone at the switch: the rest must be the rest. arg: total in ms (1000). A loaded host may
 * be late, so that only what is late three times is wrong; a timer that starts again would always be half as late again.
 */
TEST(lapic_oneshot, "lapic-oneshot", "at", 1)
{
    u64 total = (arg ? arg : 1000) * MS, hz = apic_timer_hz(), took = 0;
    u32 count = hz / 16 * (total / MS) / 1000;
    handlers[0x40] = timer_handler;
    for (int try = 0; try < 3; try++) {
        ticks = 0;
        apic_write(0x3e0, 3);               /* divide by 16 */
        apic_write(0x320, 0x40);
        u64 h0 = hpet_ns();
        apic_write(0x380, count);
        while (hpet_ns() - h0 < total / 2) {
            pause();
        }
        u32 rest = apic_read(0x390);
        at("lapic-oneshot");
        u32 rest2 = apic_read(0x390);
        u32 initial = apic_read(0x380);
        check(initial == count, "initial count", initial, count);
        if (!ticks) {
            check(rest2 <= rest, "remaining count after the switch", rest2, rest);
        }
        sti();
        while (!ticks && hpet_ns() - h0 < 4 * total) {
            pause();
        }
        cli();
        check(ticks == 1, "interrupts of the one-shot timer", ticks, 1);
        took = tick_ns - h0;
        note("one-shot: %lu us of %lu us, rest at the switch %u then %u of %u", took / 1000, total / 1000, rest, rest2, count);
        check(took > total - total / 20, "one-shot fired early, nanoseconds", took, total);
        if (took < total + total / 3) {
            break;
        }
    }
    check(took < total + total / 3, "one-shot fired late, nanoseconds", took, total);
    wait_ns(2 * MS);
    sti();
    wait_ns(2 * MS);
    cli();
    check(ticks == 1, "interrupts afterwards", ticks, 1);
}
/* The timer expires while the processor has interrupts off across the switch: pending, delivered once. */
TEST(lapic_expired, "lapic-expired", "at", 1)
{
    u64 hz = apic_timer_hz();
    handlers[0x40] = timer_handler;
    ticks = 0;
    wait_kind = 0;
    apic_write(0x3e0, 0xb);
    apic_write(0x320, 0x40);
    apic_write(0x380, hz / 1000);
    wait_ns(10 * MS);
    at("lapic-expired");
    check(ticks == 0, "interrupts with IF clear", ticks, 0);
    check(apic_read(0x200 + 0x10 * 2) & 1, "IRR bit of the timer", apic_read(0x220), 1);
    sti();
    wait_ns(5 * MS);
    cli();
    check(ticks == 1, "interrupts", ticks, 1);
    check(apic_read(0x390) == 0, "current count", apic_read(0x390), 0);
}
/* Periodic: the rate stays; several points, so that several switches fall into a period. arg: period in ms (40). */
TEST(lapic_periodic, "lapic-periodic", "at", 1)
{
    u64 period = (arg ? arg : 40) * MS, hz = apic_timer_hz();
    handlers[0x40] = timer_handler;
    apic_write(0x3e0, 0xa);                 /* divide by 128 */
    apic_write(0x320, 1 << 17 | 0x40);
    apic_write(0x380, hz / 128 * (period / MS) / 1000);
    for (int i = 0; i < 4; i++) {
        at("lapic-periodic");
        u32 now = apic_read(0x390), initial = apic_read(0x380);
        check(now <= initial, "current count", now, initial);
        check(apic_read(0x3e0) == 0xa, "divider", apic_read(0x3e0), 0xa);
        ticks = 0;
        sti();
        while (!ticks) {
            pause();
        }
        /* A loaded host delivers late and merges ticks: the rate is wrong only if it is wrong three times. */
        u64 took = 0;
        for (int try = 0; try < 3 && !(took > 8 * period && took < 13 * period); try++) {
            u64 h0 = hpet_ns();
            u32 t0 = ticks;
            while (ticks - t0 < 10 && hpet_ns() - h0 < 40 * period) {
                pause();
            }
            took = hpet_ns() - h0;
        }
        cli();
        note("10 periods of %lu us took %lu us", period / 1000, took / 1000);
        check(took > 8 * period && took < 13 * period, "10 periods, nanoseconds", took, 10 * period);
    }
}
/* Random switches while the periodic timer ticks: the count agrees with the HPET's time. */
TEST(lapic_storm, "lapic-storm", "storm", 1)
{
    u64 period = 10 * MS, hz = apic_timer_hz();
    handlers[0x40] = timer_handler;
    ticks = 0;
    apic_write(0x3e0, 0xb);
    apic_write(0x320, 1 << 17 | 0x40);
    u64 h0 = hpet_ns();
    apic_write(0x380, hz / 1000 * (period / MS));
    storm("lapic-storm");
    while (!stop_requested()) {
        sti();
        wait_ns(2 * MS);
        cli();
        progress(ticks);
    }
    /* A loaded host merges ticks, so there may be too few; never too many, and it must still tick. */
    u64 expected = (hpet_ns() - h0) / period;
    u32 last = ticks;
    sti();
    for (h0 = hpet_ns(); ticks < last + 5 && hpet_ns() - h0 < 3000 * MS;) {
        pause();
    }
    cli();
    check(ticks >= last + 5, "ticks in 3 s at the end", ticks - last, 5);
    ticks = last;
    note("ticks %u, expected %lu", ticks, expected);
    check(ticks <= expected + expected / 10 + 3, "periodic ticks (too many)", ticks, expected);
    check(ticks >= expected / 10, "periodic ticks (too few)", ticks, expected);
}

/* ---- sti; hlt (8): each wake-up must come ---- */
extern u8 after_hlt[], after_sti[];
static volatile u64 early;
static void wake_handler(struct regs *r)
{
    if (r->rip == (u64)after_sti) {     /* between sti and hlt: the shadow was lost */
        early++;
    }
    ticks++;
    apic_eoi();
}
/* A wake-up that was lost is rescued by the other timer, so that the test can say so. */
static volatile u32 rescues;
static void rescue_handler(struct regs *r)
{
    (void)r;
    rescues++;
    apic_eoi();
}
/* arg 0: LAPIC one-shot; 1: PIT through the IOAPIC; 2: self-IPI, pending before sti. */
TEST(sti_hlt, "sti-hlt", "storm", 1)
{
    u64 rounds = 0, lost = 0, repeated = 0, hz = apic_timer_hz();
    handlers[0x41] = wake_handler;
    handlers[0x43] = rescue_handler;
    early = 0;
    ticks = 0;
    apic_write(0x3e0, 0xb);
    apic_write(0x320, arg == 0 ? 0x41 : 1 << 17 | 0x43);
    if (arg == 1) {
        ioapic_route(2, 0x41, apic_ids(0));
    } else {
        ioapic_route(2, 0x43, apic_ids(0));
        outb(0x43, 0x34), outb(0x40, 0xff), outb(0x40, 0xff);       /* 18 Hz */
    }
    if (arg) {
        apic_write(0x380, hz / 18);
    }
    storm("sti-hlt");
    while (!stop_requested()) {
        u32 before = ticks;
        rescues = 0;
        if (arg == 0) {
            apic_write(0x380, hz / 20000 * (1 + rounds % 20));  /* 50 us to 1 ms */
        } else if (arg == 1) {
            u32 count = 60 + rounds % 1000;
            outb(0x43, 0x30);
            outb(0x40, count);
            outb(0x40, count >> 8);
        } else {
            apic_icr(apic_ids(0), 0x41);
        }
        /* Until it has come, or the rescuer a hundred times: then it is not late but lost. */
        while (ticks == before && rescues < 100) {
            asm volatile("sti\n .globl after_sti\n after_sti:\n hlt\n .globl after_hlt\n after_hlt:\n cli" ::: "memory");
        }
        /*
         * The kernel does not tell whether an expired one-shot timer's interrupt was delivered: a switch out of kvm at that
         * moment repeats it once rather than lose it.
         */
        u32 most = arg == 0 ? 2 : 1;
        repeated += ticks - before == 2;
        check(ticks - before >= 1 && ticks - before <= most, "wake-ups of one timer", ticks - before, 1);
        if ((ticks == before || ticks - before > most) && ++lost > 2) {
            break;
        }
        rounds++;
        progress(rounds);
    }
    check(early == 0, "interrupts between sti and hlt", early, 0);
    check(repeated <= 100, "timers whose interrupt came twice", repeated, 0);
    note("rounds %lu, timers whose interrupt came twice %lu", rounds, repeated);
}

/* ---- the interrupt shadow itself, made dense: an IPI storm from the other processor against sti; nop; cli ---- */
extern u8 shadow_nop[], shadow_ss[];
static volatile u32 shadow_stop;
static volatile u64 shadow_got;
static void shadow_handler(struct regs *r)
{
    if (r->rip == (u64)shadow_nop || r->rip == (u64)shadow_ss) {
        early++;
    }
    shadow_got++;
    apic_eoi();
}
static void shadow_sender(void)
{
    u64 sent = 0;
    while (!shadow_stop) {
        u64 got = shadow_got;
        apic_icr(apic_ids(0), 0x42);
        sent++;
        while (shadow_got == got && !shadow_stop) {
            pause();
        }
    }
    (void)sent;
}
TEST(shadow, "shadow", "storm", 2)
{
    u64 rounds = 0;
    handlers[0x42] = shadow_handler;
    early = 0;
    shadow_got = 0;
    shadow_stop = 0;
    ap_run(1, shadow_sender);
    storm("shadow");
    while (!stop_requested()) {
        for (int i = 0; i < 2000; i++) {
            asm volatile("mov %%ss, %%eax\n"
                         "sti\n .globl shadow_nop\n shadow_nop:\n nop\n"
                         "movl %%eax, %%ss\n .globl shadow_ss\n shadow_ss:\n nop\n cli" ::: "rax", "memory");
        }
        rounds++;
        progress(rounds);
    }
    shadow_stop = 1;
    sti();
    ap_wait(1);
    cli();
    check(early == 0, "interrupts in a shadow", early, 0);
    check(shadow_got > 0, "interrupts", shadow_got, 1);
    note("rounds %lu, interrupts %lu", rounds, shadow_got);
}

/* ---- PIT and HPET counters go on ---- */
static u32 pit_count(void)
{
    outb(0x43, 0);
    u32 lo = inb(0x40);
    return lo | inb(0x40) << 8;
}
TEST(pit, "pit", "at", 1)
{
    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 0);
    u32 a = pit_count();
    at("pit");
    /* A loaded host may stop us between the readings of the two clocks: wrong only if it is wrong each time. */
    u32 b = 0, c = 0;
    u64 got = 0, want = 1;
    for (int try = 0; try < 8 && !(got > want * 8 / 10 && got < want * 12 / 10); try++) {
        b = pit_count();
        u64 h0 = hpet_ns();
        wait_ns(10 * MS);
        c = pit_count();
        want = (hpet_ns() - h0) * 1193 / 1000000;
        got = (b - c) & 0xffff;
    }
    note("PIT %u %u %u", a, b, c);
    check(got > want * 8 / 10 && got < want * 12 / 10, "PIT counts in 10 ms", got, want);
}
