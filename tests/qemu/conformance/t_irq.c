/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Interrupts across a switch: in flight, pending, in service; the IOAPIC's routes, the 8259, MSI (pitfalls 7, 8, 23).
 */
#include "lib.h"

#define MS 1000000ul

static volatile u32 hits[256];
static volatile u32 order[16], orders;
static void count_handler(struct regs *r)
{
    hits[r->vec]++;
    if (orders < 16) {
        order[orders++] = r->vec;
    }
    apic_eoi();
}
static void quiet(void)
{
    memset((void *)hits, 0, sizeof(hits));
    orders = 0;
}
/* Interrupts on for a moment. */
static void drain(void)
{
    sti();
    wait_ns(2 * MS);
    cli();
}

/* Interrupts on until the vector has come `count` times (or for a second), and a moment longer for those too many. */
static void drain_for(u32 vec, u32 count)
{
    u64 h0 = hpet_ns();
    sti();
    while (hits[vec] < count && hpet_ns() - h0 < 1000 * MS) {
        pause();
    }
    wait_ns(MS);
    cli();
}

/* All registers of the LAPIC and IOAPIC that a guest may read. */
TEST(apic_regs, "apic-regs", "at", 1)
{
    static const u32 regs[] = { 0x20, 0x30, 0x80, 0xa0, 0xd0, 0xe0, 0xf0, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x160, 0x170,
        0x180, 0x1f0, 0x200, 0x240, 0x270, 0x280, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0 };
    u32 value[sizeof(regs) / 4], io[48];
    apic_write(0xd0, 0x5000000);
    apic_write(0x350, 0x10000 | 0x53);
    apic_write(0x360, 0x400);               /* LINT1: NMI */
    apic_write(0x370, 0x10000 | 0x54);
    apic_write(0x340, 0x10000 | 0x55);
    apic_write(0x3e0, 9);
    apic_write(0x310, 0x7000000);
    apic_write(0x80, 0x20);
    /* All that may be set: focus processor checking and, where the version register offers it, directed EOI. */
    u32 spurious = apic_read(0xf0);
    apic_write(0xf0, spurious | 1 << 9 | (apic_read(0x30) & 1u << 24 ? 1 << 12 : 0));
    u64 base = rdmsr(0x1b);
    for (u32 i = 0; i < 24; i++) {
        ioapic_write(0x10 + 2 * i, 1 << 16 | (0x60 + i) | (i & 1) << 15 | (i & 2) << 12);
        ioapic_write(0x11 + 2 * i, (i & 3) << 24);
    }
    ioapic_route(4, VEC_UART, apic_ids(0));
    for (u32 i = 0; i < sizeof(regs) / 4; i++) {
        value[i] = apic_read(regs[i]);
    }
    for (u32 i = 0; i < 48; i++) {
        io[i] = ioapic_read(0x10 + i);
    }
    at("apic-regs");
    for (u32 i = 0; i < sizeof(regs) / 4; i++) {
        u32 now = apic_read(regs[i]);
        u32 mask = regs[i] >= 0x100 && regs[i] < 0x280 && wait_kind ? ~(1u << (VEC_UART & 31)) : ~0u;
        if (((now ^ value[i]) & mask) != 0) {
            fail("LAPIC register %x is %x, was %x", regs[i], now, value[i]);
        }
    }
    for (u32 i = 0; i < 48; i++) {
        u32 now = ioapic_read(0x10 + i);
        if (now != io[i]) {
            fail("IOAPIC register %x is %x, was %x", 0x10 + i, now, io[i]);
        }
    }
    check(rdmsr(0x1b) == base, "APIC base", rdmsr(0x1b), base);
    u32 now = apic_read(0xf0);
    apic_write(0xf0, spurious);
    apic_write(0xf0, now);
    check(apic_read(0xf0) == now, "spurious interrupt register", apic_read(0xf0), now);
    apic_write(0xf0, spurious);
    apic_write(0x360, 1 << 16);
    apic_write(0x80, 0);
}

/* Pending in the LAPIC at the switch, delivered once after it, highest first. */
TEST(irr, "irr-pending", "at", 1)
{
    wait_kind = 0;
    quiet();
    for (u32 v = 0x50; v <= 0x90; v += 0x20) {
        handlers[v] = count_handler;
        apic_icr(apic_ids(0), v);
    }
    at("irr-pending");
    for (u32 v = 0x50; v <= 0x90; v += 0x20) {
        check(apic_read(0x200 + v / 32 * 0x10) >> (v & 31) & 1, "IRR bit", apic_read(0x200 + v / 32 * 0x10), 1u << (v & 31));
        check(hits[v] == 0, "interrupts with IF clear", hits[v], 0);
    }
    drain_for(0x50, 1);
    check(hits[0x50] == 1 && hits[0x70] == 1 && hits[0x90] == 1, "interrupts", hits[0x50] << 16 | hits[0x70] << 8 | hits[0x90], 0x10101);
    check(order[0] == 0x90 && order[1] == 0x70 && order[2] == 0x50, "order", order[0] << 16 | order[1] << 8 | order[2], 0x907050);
}

/* In service at the switch: lower priorities wait for the EOI, higher ones nest. */
static void nest_handler(struct regs *r)
{
    hits[r->vec]++;
    sti();
    wait_ns(MS);
    cli();
    check(hits[0x50] == 0, "lower interrupt before the switch, in service", hits[0x50], 0);
    at("isr-nested");
    check(apic_read(0x130) >> (0x70 & 31) & 1, "ISR bit", apic_read(0x130), 1 << (0x70 & 31));
    check(apic_read(0xa0) >> 4 == 7, "PPR", apic_read(0xa0), 0x70);
    sti();
    apic_icr(apic_ids(0), 0x90);
    wait_ns(MS);
    cli();
    check(hits[0x50] == 0, "lower interrupt in service", hits[0x50], 0);
    check(hits[0x90] == 1, "higher interrupt in service", hits[0x90], 1);
    apic_eoi();
}
TEST(isr_nested, "isr-nested", "at", 1)
{
    wait_kind = 0;
    quiet();
    handlers[0x50] = handlers[0x90] = count_handler;
    handlers[0x70] = nest_handler;
    apic_icr(apic_ids(0), 0x70);
    apic_icr(apic_ids(0), 0x50);
    drain_for(0x50, 1);
    check(hits[0x70] == 1, "interrupts 0x70", hits[0x70], 1);
    check(hits[0x50] == 1, "lower interrupt after the EOI", hits[0x50], 1);
    check(apic_read(0x130) == 0, "ISR afterwards", apic_read(0x130), 0);
}

/* TPR holds back a pending interrupt in either mode. */
TEST(tpr, "tpr", "at", 1)
{
    wait_kind = 0;
    quiet();
    handlers[0x50] = count_handler;
    write_cr8(7);
    apic_icr(apic_ids(0), 0x50);
    drain();
    check(hits[0x50] == 0, "masked by CR8", hits[0x50], 0);
    at("tpr");
    check(read_cr8() == 7, "cr8", read_cr8(), 7);
    drain();
    check(hits[0x50] == 0, "masked by CR8 after the switch", hits[0x50], 0);
    sti();
    write_cr8(4);
    wait_ns(MS);
    cli();
    check(hits[0x50] == 1, "after lowering CR8", hits[0x50], 1);
    write_cr8(0);
}

/* One shot through a route of its own ends the ticks that the firmware has started. */
static void pit_quiet(void)
{
    handlers[0x50] = count_handler;
    ioapic_route(2, 0x50, apic_ids(0));
    pit_shot();
    drain_for(0x50, 1);
    quiet();
}
/* The IOAPIC's routes, changed in one mode, used in the other. The source is the PIT, edge. */
TEST(ioapic, "ioapic-route", "at", 1)
{
    pit_quiet();
    for (u32 v = 0x51; v < 0x59; v++) {
        handlers[v] = count_handler;
        ioapic_route(2, v, apic_ids(0));
        at("ioapic-route");
        pit_shot();
        drain_for(v, 1);
        check(hits[v] == 1, "interrupts by the new route", hits[v], 1);
        check(v == 0x51 || hits[v - 1] == 1, "interrupts by the old route", v == 0x51 ? 1 : hits[v - 1], 1);
    }
    ioapic_route(2, 1 << 16, 0);
}
/* Masked at the IOAPIC in one mode, must stay silent in the other. */
TEST(ioapic_mask, "ioapic-mask", "at", 1)
{
    pit_quiet();
    handlers[0x51] = count_handler;
    ioapic_route(2, 0x51, apic_ids(0));
    pit_shot();
    drain_for(0x51, 1);
    check(hits[0x51] == 1, "interrupts", hits[0x51], 1);
    ioapic_route(2, 1 << 16 | 0x51, apic_ids(0));
    at("ioapic-mask");
    pit_shot();
    drain();
    check(hits[0x51] == 1, "interrupts by a masked route", hits[0x51], 1);
    ioapic_route(2, 0x51, apic_ids(0));
    at("ioapic-mask open");
    u32 before = hits[0x51];
    pit_shot();
    drain_for(0x51, before + 1);
    check(hits[0x51] == before + 1, "interrupts after unmasking", hits[0x51], before + 1);
    ioapic_route(2, 1 << 16, 0);
}
/* The 8259 through LINT0 as ExtINT. */
TEST(pic, "pic", "at", 1)
{
    wait_kind = 0;
    quiet();
    outb(0x20, 0x11), outb(0x21, 0x30), outb(0x21, 4), outb(0x21, 1);
    outb(0xa0, 0x11), outb(0xa1, 0x38), outb(0xa1, 2), outb(0xa1, 1);
    outb(0x21, 0xfe);
    outb(0xa1, 0xff);
    apic_write(0x350, 0x700);
    handlers[0x30] = count_handler;
    for (int i = 0; i < 3; i++) {
        pit_shot();
        wait_ns(2 * MS);                /* pending in the 8259 */
        at("pic");
        check(hits[0x30] == (u32)i, "interrupts with IF clear", hits[0x30], i);
        drain_for(0x30, i + 1);
        check(hits[0x30] == (u32)i + 1, "interrupts of the 8259", hits[0x30], i + 1);
        outb(0x20, 0x20);
    }
    outb(0x21, 0xff);
    apic_write(0x350, 1 << 16);
}

/* edu: INTx is level-triggered through the IOAPIC; the line is high over the switch. */
static volatile u8 *edu(void)
{
    u32 dev = pci_find(0x11e81234);
    if (dev == ~0u) {
        note("no edu device");
        return 0;
    }
    pci_write(dev, 4, pci_read(dev, 4) | 6);
    return (volatile u8 *)(u64)(pci_read(dev, 0x10) & ~15u);
}
static volatile u8 *edu_regs;
static void level_handler(struct regs *r)
{
    hits[r->vec]++;
    if (hits[r->vec] >= 3) {            /* the line stays up for two interrupts: each EOI makes the IOAPIC send again */
        *(volatile u32 *)(edu_regs + 0x64) = ~0u;
    }
    apic_eoi();
}
TEST(level, "level-irq", "at", 1)
{
    edu_regs = edu();
    if (!edu_regs) {
        return;
    }
    u32 dev = pci_find(0x11e81234), line = pci_read(dev, 0x3c) & 0xff;
    wait_kind = 0;
    handlers[0x52] = level_handler;
    for (int i = 0; i < 4; i++) {
        quiet();
        for (u32 pin = 5; pin < 24; pin++) {
            if (pin == line || pin >= 16) {
                ioapic_route(pin, 1 << 15 | 0x52, apic_ids(0));
            }
        }
        *(volatile u32 *)(edu_regs + 0x60) = 1;
        wait_ns(MS);
        at("level-irq");
        check(hits[0x52] == 0, "level interrupts with IF clear", hits[0x52], 0);
        drain_for(0x52, 3);
        check(hits[0x52] == 3, "level interrupts", hits[0x52], 3);
    }
    for (u32 pin = 5; pin < 24; pin++) {
        ioapic_route(pin, 1 << 16, 0);
    }
}
/* edu: MSI, its message changed in one mode and used in the other. */
TEST(msi, "msi", "at", 1)
{
    volatile u8 *regs = edu();
    if (!regs) {
        return;
    }
    u32 dev = pci_find(0x11e81234), cap = pci_read(dev, 0x34) & 0xff;
    while (cap && (pci_read(dev, cap) & 0xff) != 5) {
        cap = pci_read(dev, cap) >> 8 & 0xff;
    }
    if (!cap) {
        note("no MSI");
        return;
    }
    u32 wide = pci_read(dev, cap) >> 23 & 1;
    quiet();
    for (u32 v = 0x53; v < 0x59; v++) {
        handlers[v] = count_handler;
        pci_write(dev, cap + 4, 0xfee00000 | apic_ids(0) << 12);
        pci_write(dev, cap + (wide ? 12 : 8), v);
        pci_write(dev, cap, pci_read(dev, cap) | 1 << 16);
        at("msi");
        *(volatile u32 *)(regs + 0x60) = 1;
        drain_for(v, 1);
        *(volatile u32 *)(regs + 0x64) = ~0u;
        check(hits[v] == 1, "MSI", hits[v], 1);
    }
    pci_write(dev, cap, pci_read(dev, cap) & ~(1u << 16));
}

/* Many sources at once on one processor: self-IPIs, LAPIC timer, PIT; interrupts off and on in a dense loop. */
TEST(irq_storm, "irq-storm", "storm", 1)
{
    u32 sent = 0;
    u64 rounds = 0;
    quiet();
    handlers[0x47] = handlers[0x48] = handlers[0x49] = count_handler;
    ioapic_route(2, 0x49, apic_ids(0));
    outb(0x43, 0x34), outb(0x40, 0xff), outb(0x40, 0x4);     /* about 1 kHz */
    apic_write(0x3e0, 0xb);
    apic_write(0x320, 1 << 17 | 0x48);
    apic_write(0x380, 3000000);
    storm("irq-storm");
    while (!stop_requested()) {
        for (int i = 0; i < 50; i++) {
            cli();
            apic_icr(apic_ids(0), 0x47);
            sent++;
            for (int j = 0; j < (int)(rounds & 63); j++) {
                pause();
            }
            sti();
            u64 h0 = 0;
            for (u32 spins = 0; hits[0x47] != sent; spins++) {
                pause();
                if (!(spins & 0xfff)) {
                    u64 now = hpet_ns();
                    h0 = h0 ? h0 : now;
                    if (now - h0 > 10000 * MS) {
                        fail("self-IPI %u did not arrive in 10 s (seen %u)", sent, hits[0x47]);
                        goto out;
                    }
                }
            }
        }
        rounds++;
        progress(sent);
    }
out:
    cli();
    check(hits[0x47] == sent, "self-IPIs", hits[0x47], sent);
    check(hits[0x48] > 0, "timer interrupts", hits[0x48], 1);
    check(hits[0x49] > 0, "PIT interrupts", hits[0x49], 1);
    note("self-IPIs %u, timer %u, PIT %u", sent, hits[0x48], hits[0x49]);
}
