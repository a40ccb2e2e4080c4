/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Clocks of the board across a switch: HPET, RTC with its CMOS memory, and what the 8254 keeps beside its count. They are
 * QEMU's devices in either mode; what changes hands is the way of their interrupts.
 */
#include "lib.h"

#define MS 1000000ul
#define VEC 0x51
#define HPET 0xfed00000ul
#define HPET_CONFIG 0x10
#define HPET_COUNTER 0xf0
#define TIMER_CONFIG 0x100
#define TIMER_COMPARATOR 0x108
#define TIMER_ON 4u
#define TIMER_PERIODIC (8u | 0x40u)     /* 0x40: the next write of the comparator sets it, the one after that the period */

static volatile u64 *hpet(u32 reg) { return (volatile u64 *)(HPET + reg); }
static volatile u32 ticks;
static volatile u64 tick_ns;
static int irr(void) { return apic_read(0x200 + VEC / 32 * 0x10) >> (VEC & 31) & 1; }

/* Interrupts on until there were `count` in all or the time is over. */
static void wait_ticks(u32 count, u64 ns)
{
    u64 h0 = hpet_ns();
    sti();
    while (ticks < count && hpet_ns() - h0 < ns) {
        pause();
    }
    cli();
}

/* ---- HPET ---- */
static void tick_handler(struct regs *r)
{
    (void)r;
    if (!ticks++) {
        tick_ns = hpet_ns();
    }
    apic_eoi();
}
static u64 counts(u64 ns) { return ns * 1000 / (*hpet(0) >> 32) * 1000; }

/* Its counter stands when it is stopped, keeps what is written, and goes on. */
TEST(hpet, "hpet", "at", 1)
{
    u64 config = *hpet(HPET_CONFIG);
    *hpet(HPET_CONFIG) = config & ~1ul;
    u64 stood = *hpet(HPET_COUNTER);
    at("hpet stopped");
    check(*hpet(HPET_COUNTER) == stood, "counter of the stopped HPET", *hpet(HPET_COUNTER), stood);
    check(*hpet(HPET_CONFIG) == (config & ~1ul), "configuration of the stopped HPET", *hpet(HPET_CONFIG), config & ~1ul);
    u64 written = stood + 0x123456789a;
    *hpet(HPET_COUNTER) = written;
    at("hpet written");
    check(*hpet(HPET_COUNTER) == written, "counter as written", *hpet(HPET_COUNTER), written);
    *hpet(HPET_CONFIG) = config | 1;
    u64 t0 = rdtsc(), c0 = *hpet(HPET_COUNTER);
    check(c0 >= written && c0 - written < counts(1000 * MS), "counter just started", c0, written);
    while (rdtsc() - t0 < 1000000) {
        pause();
    }
    check(*hpet(HPET_COUNTER) > c0, "counter a moment later", *hpet(HPET_COUNTER), c0);
}

/*
 * Timer 0, by the 8254's way (legacy replacement) or by a pin of its own. The comparator is written before the interrupt is
 * allowed: QEMU's HPET interrupts at once for one that is in the past.
 */
static u32 hpet_pin;
static void hpet_arm(u64 ns, u32 flags, int legacy)
{
    hpet_pin = legacy ? 2 : __builtin_ctz(*hpet(TIMER_CONFIG) >> 32);
    handlers[VEC] = tick_handler;
    ioapic_route(hpet_pin, VEC, apic_ids(0));
    pit_shot();                                 /* ends the ticks that the firmware has started: it may have the same pin */
    wait_ticks(~0u, 2 * MS);
    ticks = 0;
    *hpet(HPET_CONFIG) = 1 | (legacy ? 2 : 0);
    *hpet(TIMER_CONFIG) = (legacy ? 0 : hpet_pin << 9) | flags;
    *hpet(TIMER_COMPARATOR) = *hpet(HPET_COUNTER) + counts(ns);
    if (flags) {
        *hpet(TIMER_COMPARATOR) = counts(ns);
    }
    *hpet(TIMER_CONFIG) |= TIMER_ON;
}
static void hpet_off(void)
{
    *hpet(TIMER_CONFIG) = 0;
    *hpet(HPET_CONFIG) = 1;
    ioapic_route(hpet_pin, 1 << 16, 0);
}
/* Falls due after the switch: once, not early. A loaded host may be late, so that only what is late three times is wrong. */
static void hpet_one_shot(const char *point, int legacy)
{
    u64 total = 400 * MS, took = 0;
    for (int try = 0; try < 3; try++) {
        hpet_arm(total, 0, legacy);
        u64 h0 = hpet_ns();
        wait_ns(total / 4);
        at(point);
        wait_ticks(1, 4000 * MS);
        took = tick_ns - h0;
        check(ticks == 1, "interrupts of the comparator", ticks, 1);
        if (!ticks) {
            return;
        }
        check(took > total - total / 20, "comparator early, nanoseconds", took, total);
        if (took < total + total / 3) {
            break;
        }
    }
    check(took < total + total / 3, "comparator late, nanoseconds", took, total);
}
/* After the one-shot comparator one that falls due before the switch, with interrupts off; then a periodic one. */
TEST(hpet_irq, "hpet-irq", "at", 1)
{
    u64 period = 20 * MS;
    hpet_one_shot("hpet-irq armed", 1);

    hpet_arm(MS, 0, 1);
    wait_ns(10 * MS);
    check(irr(), "pending before the switch", irr(), 1);
    wait_kind = 0;
    at("hpet-irq pending");
    check(ticks == 0 && irr(), "pending after the switch", irr(), 1);
    wait_ticks(2, 20 * MS);
    check(ticks == 1, "interrupts of a pending comparator", ticks, 1);

    u64 h0 = hpet_ns();
    hpet_arm(period, TIMER_PERIODIC, 1);
    u32 before = ticks;
    at("hpet-irq periodic");
    wait_ticks(before + 10, 100 * period);
    u32 most = (hpet_ns() - h0) / period;
    check(ticks >= 10, "periodic interrupts in a hundred periods", ticks, 10);
    check(ticks <= most, "periodic interrupts (too many)", ticks, most);
    hpet_off();
    wait_ticks(~0u, 2 * MS);                    /* one may be pending */
    u32 last = ticks;
    at("hpet-irq off");
    wait_ticks(~0u, 3 * period);
    check(ticks == last, "interrupts after switching off", ticks, last);
}
/* By the pin that its route names. */
TEST(hpet_route, "hpet-route", "at", 1)
{
    hpet_one_shot("hpet-route", 0);
    hpet_off();
}

/* ---- RTC ---- */
static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}
static void cmos_write(u8 reg, u8 v)
{
    outb(0x70, reg);
    outb(0x71, v);
}
static u32 binary(u8 v) { return cmos(0x0b) & 4 ? v : (v >> 4) * 10 + (v & 15); }
/* Seconds since midnight, not read in the middle of an update. */
static u32 time_of_day(void)
{
    u32 last = ~0u;
    for (;;) {
        while (cmos(0x0a) & 0x80) {
            pause();
        }
        u32 now = (binary(cmos(4)) * 60 + binary(cmos(2))) * 60 + binary(cmos(0));
        if (now == last) {
            return now;
        }
        last = now;
    }
}
/* Its memory, its alarm, the register that is selected; its time goes on like the HPET's. */
TEST(rtc, "rtc", "at", 1)
{
    static const u8 regs[] = { 0x01, 0x03, 0x05, 0x70, 0x71, 0x75, 0x7e };
    u8 kept[sizeof(regs)];
    for (u32 i = 0; i < sizeof(regs); i++) {
        kept[i] = cmos(regs[i]);
        cmos_write(regs[i], 0x10 + i);
    }
    u8 b = cmos(0x0b);
    u32 t0 = time_of_day();
    u64 h0 = hpet_ns();
    outb(0x70, 0x75);
    at("rtc");
    u8 selected = inb(0x71);
    check(selected == 0x15, "register selected before the switch", selected, 0x15);
    for (u32 i = 0; i < sizeof(regs); i++) {
        u8 now = cmos(regs[i]);
        check(now == 0x10 + i, "register of the RTC", (u32)regs[i] << 8 | now, (u32)regs[i] << 8 | (0x10 + i));
        cmos_write(regs[i], kept[i]);
    }
    check(cmos(0x0b) == b, "register B", cmos(0x0b), b);
    wait_ns(1200 * MS);
    i64 seconds = (time_of_day() + 86400 - t0) % 86400, want = (hpet_ns() - h0) / (1000 * MS);
    check(seconds >= want - 1 && seconds <= want + 1, "seconds that passed", seconds, want);
}
#define RTC_HZ 8
static void rtc_handler(struct regs *r)
{
    (void)r;
    u8 c = cmos(0x0c);
    ticks++;
    check((c & 0xc0) == 0xc0, "register C in the interrupt", c, 0xc0);
    apic_eoi();
}
/* The periodic interrupt; its line stays up until register C is read, so that an edge that is lost is the last one. */
TEST(rtc_irq, "rtc-irq", "at", 1)
{
    u8 a = cmos(0x0a), b = cmos(0x0b);
    wait_kind = 0;
    ticks = 0;
    handlers[VEC] = rtc_handler;
    cmos(0x0c);
    ioapic_route(8, VEC, apic_ids(0));
    /* Slow: QEMU's IOAPIC sends again for a tick that comes while the line is up, and a loaded host may take long to read C. */
    cmos_write(0x0a, (a & 0xf0) | 13);
    cmos_write(0x0b, b | 0x40);
    u64 h0 = hpet_ns();
    wait_ticks(3, 5000 * MS);
    check(ticks >= 3, "interrupts before the switch", ticks, 3);
    for (int i = 0; i < 4; i++) {
        at("rtc-irq");
        u32 before = ticks;
        wait_ticks(before + 3, 5000 * MS);
        check(ticks >= before + 3, "interrupts in 5 s after the switch", ticks - before, 3);
        /* The line rises with interrupts off and stays up over the next switch. */
        for (u64 h1 = hpet_ns(); !irr() && hpet_ns() - h1 < 1000 * MS;) {
            pause();
        }
        check(irr(), "pending before the switch", irr(), 1);
    }
    u32 most = (hpet_ns() - h0) * RTC_HZ / (1000 * MS) + 2;
    check(ticks <= most, "periodic interrupts (too many)", ticks, most);
    cmos_write(0x0b, b);
    cmos_write(0x0a, a);
    cmos(0x0c);
    ioapic_route(8, 1 << 16, 0);
}

/* ---- 8254: a latched count, the half that is read next, its mode ---- */
#define PIT_HZ 1193182ul
static u64 pit_half(u64 ns) { return ns % (65536 * (1000 * MS) / PIT_HZ); }
TEST(pit_latch, "pit-latch", "at", 1)
{
    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 0);
    wait_ns(MS);
    outb(0x43, 0);                              /* latch */
    u64 h0 = hpet_ns();
    u32 low = inb(0x40);
    at("pit-latch");
    outb(0x43, 0xe2);                           /* status; the latched count is not changed by it */
    /* A quarter to half of the counter's turn after the latch, a count that is not latched differs from one that is. */
    while (pit_half(hpet_ns() - h0) < 14 * MS || pit_half(hpet_ns() - h0) > 28 * MS) {
        pause();
    }
    u32 status = inb(0x40);
    u32 latched = low | inb(0x40) << 8;
    outb(0x43, 0);
    u64 h1 = hpet_ns();
    u32 now = inb(0x40);
    now |= inb(0x40) << 8;
    check((status & 0x3f) == 0x34, "access and mode of counter 0", status & 0x3f, 0x34);
    i64 got = (latched - now) & 0xffff, want = pit_half(h1 - h0) * PIT_HZ / (1000 * MS);
    note("PIT latched %u, %lu us later %u", latched, (h1 - h0) / 1000, now);
    check(got > want - 8000 && got < want + 8000, "counts since the latch", got, want);
}
