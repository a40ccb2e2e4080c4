/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * IPIs and NMIs across a switch, halted and not yet started processors (pitfalls 7, 23).
 */
#include "lib.h"

#define MS 1000000ul

/* ---- IPIs, counted exactly while switching (7, 23) ---- */
static volatile u32 ipi_seen[2], ipi_stop;
static void ipi_handler(struct regs *r)
{
    (void)r;
    ipi_seen[cpu_id()]++;
    apic_eoi();
}
static void ipi_idle(void)
{
    while (!ipi_stop) {
        cli();
        if (ipi_stop) {
            sti();
            return;
        }
        if (arg == 1) {
            asm volatile("sti; hlt" ::: "memory");      /* the receiver sleeps between IPIs */
        } else {
            sti();
            pause();
        }
    }
}
/* arg 0: the receiver spins; 1: it halts. Each IPI must arrive before the next is sent. */
TEST(ipi, "ipi", "storm", 2)
{
    u32 sent = 0, late = 0;
    handlers[0x45] = ipi_handler;
    ipi_seen[0] = ipi_seen[1] = ipi_stop = 0;
    ap_run(1, ipi_idle);
    wait_ns(MS);
    storm("ipi");
    while (!stop_requested()) {
        for (int i = 0; i < 20; i++) {
            apic_icr(apic_ids(1), 0x45);
            sent++;
            u64 h0 = hpet_ns();
            while (ipi_seen[1] != sent) {
                pause();
                if (hpet_ns() - h0 > 10000 * MS) {
                    fail("IPI %u did not arrive in 10 s (seen %u)", sent, ipi_seen[1]);
                    ipi_seen[1] = sent;
                    late++;
                    break;
                }
            }
        }
        progress(sent);
        if (late) {
            break;
        }
    }
    ipi_stop = 1;
    apic_icr(apic_ids(1), VEC_KICK);
    ap_wait(1);
    wait_ns(5 * MS);
    check(ipi_seen[1] == sent, "IPIs received", ipi_seen[1], sent);
    note("IPIs %u", sent);
}
/* Both processors send to each other at once, unpaced: at the end nothing is stuck. */
static volatile u32 duel_ping, duel_pong;
static void duel_handler(struct regs *r)
{
    (void)r;
    if (cpu_id() == 1) {
        duel_ping++;
        apic_eoi();
        if (!ipi_stop) {
            apic_icr(apic_ids(0), 0x46);
        }
    } else {
        duel_pong++;
        apic_eoi();
        if (!ipi_stop) {
            apic_icr(apic_ids(1), 0x46);
        }
    }
}
TEST(ipi_duel, "ipi-duel", "storm", 2)
{
    handlers[0x46] = duel_handler;
    duel_ping = duel_pong = ipi_stop = 0;
    ap_run(1, ipi_idle);
    wait_ns(MS);
    storm("ipi-duel");
    apic_icr(apic_ids(1), 0x46);
    u32 last = 0;
    u64 h0 = hpet_ns();
    while (!stop_requested()) {
        sti();
        for (int i = 0; i < 200; i++) {
            pause();
        }
        cli();
        if (duel_ping != last) {
            last = duel_ping;
            h0 = hpet_ns();
        } else if (hpet_ns() - h0 > 10000 * MS) {
            fail("the exchange of IPIs stopped after %u and %u", duel_ping, duel_pong);
            break;
        }
        progress(last);
    }
    ipi_stop = 1;
    sti();
    wait_ns(5 * MS);
    cli();
    apic_icr(apic_ids(1), VEC_KICK);
    ap_wait(1);
    i64 difference = (i64)duel_ping - (i64)duel_pong;
    check(difference >= -1 && difference <= 1, "IPIs there minus IPIs back", difference, 0);
    note("exchanges %u", duel_ping);
}
/* IPI to a processor with interrupts off over the switch. */
static volatile u32 masked_ready, masked_go;
static void masked_receiver(void)
{
    cli();
    masked_ready = 1;
    while (!masked_go) {
        pause();
    }
    check(ipi_seen[1] == 0, "IPIs with IF clear", ipi_seen[1], 0);
    sti();
    wait_ns(3 * MS);
}
TEST(ipi_masked, "ipi-masked", "at", 2)
{
    handlers[0x45] = ipi_handler;
    ipi_seen[1] = masked_ready = masked_go = 0;
    ap_run(1, masked_receiver);
    while (!masked_ready) {
        pause();
    }
    apic_icr(apic_ids(1), 0x45);
    at("ipi-masked");
    masked_go = 1;
    ap_wait(1);
    check(ipi_seen[1] == 1, "IPIs after sti", ipi_seen[1], 1);
}
/* A halted processor is woken by an IPI after the switch, and by one sent before it not twice. */
TEST(ap_halted, "ap-halted", "at", 2)
{
    handlers[0x45] = ipi_handler;
    ipi_seen[1] = 0;
    for (u32 i = 1; i <= 3; i++) {
        wait_ns(2 * MS);            /* the idle loop has halted again */
        at("ap-halted");
        apic_icr(apic_ids(1), 0x45);
        u64 h0 = hpet_ns();
        while (ipi_seen[1] < i && hpet_ns() - h0 < 5000 * MS) {
            pause();
        }
        check(ipi_seen[1] == i, "IPIs to a halted processor", ipi_seen[1], i);
    }
}
/* A processor waiting for SIPI at the switch starts after it. arg 1: it never ran before (only in a fresh VM). */
TEST(sipi, "sipi", "at", 1)
{
    u32 r[4];
    cpuid(1, 0, r);
    for (int i = 0; i < 2; i++) {
        if (arg == 0 || i) {
            smp_start();
            ap_init_only(1);
            wait_ns(5 * MS);
        }
        at("sipi");
        check(!ap_up(1), "processor before SIPI", ap_up(1), 0);
        if (arg == 1 && !i) {
            ap_init_only(1);
            wait_ns(2 * MS);
            at("sipi after init");
        }
        ap_sipi(1);
        u64 h0 = hpet_ns();
        while (!ap_up(1) && hpet_ns() - h0 < 10000 * MS) {
            pause();
        }
        check(ap_up(1), "processor after SIPI", ap_up(1), 1);
        if (!ap_up(1)) {
            return;
        }
        handlers[0x45] = ipi_handler;
        ipi_seen[1] = 0;
        apic_icr(apic_ids(1), 0x45);
        wait_ns(100 * MS);
        check(ipi_seen[1] == 1, "IPI to the processor just started", ipi_seen[1], 1);
    }
}
/* A processor that sleeps with interrupts off for ever: only INIT wakes it. */
static void dead_runner(void)
{
    cli();
    masked_ready = 1;
    for (;;) {
        asm volatile("hlt");
    }
}
TEST(ap_dead, "ap-dead", "at", 2)
{
    masked_ready = 0;
    ap_run(1, dead_runner);
    while (!masked_ready) {
        pause();
    }
    at("ap-dead");
    ap_boot(1);
    handlers[0x45] = ipi_handler;
    ipi_seen[1] = 0;
    apic_icr(apic_ids(1), 0x45);
    wait_ns(50 * MS);
    check(ipi_seen[1] == 1, "IPI after INIT and SIPI", ipi_seen[1], 1);
}

/* ---- NMI ---- */
static volatile u32 nmis, nmi_depth, nmi_nested;
static void nmi_handler(struct regs *r)
{
    (void)r;
    nmis++;
    if (nmi_depth++) {
        nmi_nested++;
    }
    if (nmis == 1) {
        u32 kind = wait_kind;
        wait_kind = 0;
        at("nmi in the handler");
        apic_icr(apic_ids(0), 0x400);           /* masked until iret: pending */
        wait_ns(MS);
        check(nmis == 1, "NMIs while masked", nmis, 1);
        at("nmi in the handler, one pending");
        wait_ns(MS);
        check(nmis == 1, "NMIs while masked, after the switch", nmis, 1);
        wait_kind = kind;
    }
    nmi_depth--;
}
TEST(nmi, "nmi", "at", 1)
{
    handlers[2] = nmi_handler;
    nmis = nmi_depth = nmi_nested = 0;
    apic_icr(apic_ids(0), 0x400);
    u64 h0 = hpet_ns();
    while (nmis < 2 && hpet_ns() - h0 < 1000 * MS) {
        pause();
    }
    check(nmis == 2, "NMIs", nmis, 2);
    check(nmi_nested == 0, "nested NMIs", nmi_nested, 0);
    at("nmi after");
    apic_icr(apic_ids(0), 0x400);
    wait_ns(MS);
    check(nmis == 3, "NMIs after unmasking", nmis, 3);
}
/* NMIs that the harness injects while the guest waits: exactly one arrives. */
TEST(nmi_host, "nmi-host", "at", 1)
{
    handlers[2] = nmi_handler;
    nmis = 5;
    nmi_depth = nmi_nested = 0;
    apic_write(0x360, 0x400);                   /* LINT1 */
    at("nmi-host inject");
    wait_ns(5 * MS);
    check(nmis == 6, "NMIs injected by the host", nmis - 5, 1);
    apic_write(0x360, 1 << 16);
}
/* NMIs from the other processor, paced, counted exactly. */
static volatile u32 nmi_stop, nmi_sent;
static void nmi_count(struct regs *r) { (void)r; nmis++; }
static void nmi_sender(void)
{
    while (!nmi_stop) {
        u32 before = nmis;
        apic_icr(apic_ids(0), 0x400);
        nmi_sent++;
        u64 h0 = hpet_ns();
        while (nmis == before) {
            pause();
            if (hpet_ns() - h0 > 10000 * MS) {
                fail("NMI %u did not arrive in 10 s", nmi_sent);
                nmi_stop = 1;
                break;
            }
        }
    }
}
TEST(nmi_storm, "nmi-storm", "storm", 2)
{
    handlers[2] = nmi_count;
    nmis = nmi_stop = nmi_sent = 0;
    storm("nmi-storm");
    ap_run(1, nmi_sender);
    while (!stop_requested() && !nmi_stop) {
        for (int i = 0; i < 100; i++) {
            pause();
        }
        progress(nmis);
    }
    nmi_stop = 1;
    ap_wait(1);
    wait_ns(3 * MS);
    check(nmis == nmi_sent, "NMIs", nmis, nmi_sent);
    note("NMIs %u", nmis);
}
