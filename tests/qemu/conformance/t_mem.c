/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Memory across a switch: code that changes (pitfall 15), translations, accessed and dirty bits, A20.
 */
#include "lib.h"

#define JIT (PLAY + 0x80000)
#define JIT_PAGES 32

/* mov $imm, %eax; ret */
static void emit(u64 at_, u32 imm)
{
    volatile u8 *p = (volatile u8 *)at_;
    p[0] = 0xb8;
    p[1] = imm, p[2] = imm >> 8, p[3] = imm >> 16, p[4] = imm >> 24;
    p[5] = 0xc3;
}
static u32 call(u64 at_)
{
    u32 v;
    asm volatile("call *%1" : "=a"(v) : "r"(at_) : "memory", "cc", "rcx", "rdx");
    return v;
}
static u64 function(u32 i)
{
    /* Every fourth spans two pages: its immediate's second half is on the next one. */
    return JIT + i * 0x2000 + (i & 3 ? 0x100 : 0xffd);
}

/* Code rewritten in the other mode than the one that translated it; the harness turns the mode round at each point. */
TEST(smc, "smc", "at", 1)
{
    u32 version = 1;
    for (u32 i = 0; i < JIT_PAGES; i++) {
        emit(function(i), version * 1000 + i);
        call(function(i));
    }
    for (u32 round = 0; round < 6; round++) {
        at("smc rewrite");
        version++;
        for (u32 i = 0; i < JIT_PAGES; i++) {
            if ((i + round) % 3) {
                emit(function(i), version * 1000 + i);
                u32 v = call(function(i));
                check(v == version * 1000 + i, "code just rewritten", v, version * 1000 + i);
            }
        }
        at("smc run");
        for (u32 i = 0; i < JIT_PAGES; i++) {
            u32 v = call(function(i));
            u32 want = (i + round) % 3 ? version * 1000 + i : v;
            check(v == want, "code rewritten in the other mode", v, want);
            emit(function(i), version * 1000 + i);
        }
    }
    /* Only the second page of a function that spans two, and only data beside code. */
    for (u32 i = 0; i < JIT_PAGES; i += 4) {
        emit(function(i), 0x01010101);
        call(function(i));
    }
    at("smc second page");
    for (u32 i = 0; i < JIT_PAGES; i += 4) {
        *(volatile u8 *)(function(i) + 4) = 0x77;       /* on the next page */
    }
    at("smc second page run");
    for (u32 i = 0; i < JIT_PAGES; i += 4) {
        u32 v = call(function(i));
        check(v == 0x77010101, "function spanning two pages", v, 0x77010101);
    }
}

/* Code that a direct jump on the same page leads to: a translation of the jump goes on to that of the code by itself. */
TEST(smc_chain, "smc-chain", "at", 1)
{
    u64 jump = JIT, code = JIT + 0x200;
    *(volatile u8 *)jump = 0xe9;                        /* jmp rel32 */
    *(volatile u32 *)(jump + 1) = code - (jump + 5);
    for (u32 round = 0; round < 6; round++) {
        emit(code, 300 + round);
        for (int i = 0; i < 10; i++) {
            check(call(jump) == 300 + round, "code behind a jump", call(jump), 300 + round);
        }
        at("smc-chain");
        emit(code, 700 + round);
        at("smc-chain run");
        u32 v = call(jump);
        check(v == 700 + round, "code behind a jump, rewritten in the other mode", v, 700 + round);
    }
}

/* Code written by a device (edu's DMA) while in the other mode. */
TEST(smc_dma, "smc-dma", "at", 1)
{
    u32 dev = pci_find(0x11e81234);
    if (dev == ~0u) {
        note("no edu device");
        return;
    }
    volatile u8 *edu = (volatile u8 *)(u64)(pci_read(dev, 0x10) & ~15u);
    pci_write(dev, 4, pci_read(dev, 4) | 6);
    static u8 source[16] __attribute__((aligned(16)));
    for (u32 round = 0; round < 4; round++) {
        emit(JIT, 100 + round);
        call(JIT);
        at("smc-dma");
        emit((u64)source, 5000 + round);
        for (int step = 0; step < 2; step++) {      /* RAM to the device's buffer, buffer to RAM */
            *(volatile u64 *)(edu + 0x80) = step ? 0x40000 : (u64)source;
            *(volatile u64 *)(edu + 0x88) = step ? JIT : 0x40000;
            *(volatile u64 *)(edu + 0x90) = 8;
            *(volatile u64 *)(edu + 0x98) = 1 | (step ? 2 : 0);
            while (*(volatile u64 *)(edu + 0x98) & 1) {
                pause();
            }
        }
        at("smc-dma run");
        u32 v = call(JIT);
        check(v == 5000 + round, "code that a device wrote", v, 5000 + round);
    }
}

/* One processor rewrites the code that the other one runs, with a handshake. */
static volatile u32 cross_version, cross_done, cross_stop;
static u64 cross_runs;
static void cross_runner(void)
{
    while (!cross_stop) {
        u32 v = cross_version;
        if (v != cross_done) {
            u32 r[4];
            cpuid(0, 0, r);         /* serialize */
            u32 got = call(JIT), got2 = call(JIT + 0x1ffd);
            if (got != v || got2 != v) {
                fail("cross-modified code answers %u and %u, expected %u", got, got2, v);
            }
            cross_runs++;
            cross_done = v;
        }
        pause();
    }
}
TEST(smc_cross, "smc-cross", "storm", 2)
{
    u32 version = 0;
    cross_version = cross_done = cross_stop = 0;
    cross_runs = 0;
    ap_run(1, cross_runner);
    storm("smc-cross");
    while (!stop_requested()) {
        for (int i = 0; i < 20; i++) {
            version++;
            emit(JIT, version);
            emit(JIT + 0x1ffd, version);
            cross_version = version;
            while (cross_done != version) {
                pause();
            }
            if (!(i & 7)) {
                check(call(JIT) == version, "own view of the code", call(JIT), version);
            }
        }
        progress(version);
    }
    cross_stop = 1;
    ap_wait(1);
    note("versions %u", version);
}

/* A function rewritten and run thousands of times by one processor while switches happen at random. */
TEST(smc_storm, "smc-storm", "storm", 1)
{
    u64 rounds = 0;
    storm("smc-storm");
    while (!stop_requested()) {
        for (u32 i = 0; i < JIT_PAGES; i++) {
            u32 want = rounds * 100 + i;
            emit(function(i), want);
            u32 v = call(function(i));
            check(v == want, "rewritten code", v, want);
        }
        for (u32 i = 0; i < JIT_PAGES; i++) {
            u32 v = call(function(i));
            check(v == rounds * 100 + i, "code on its second run", v, rounds * 100 + i);
        }
        rounds++;
        progress(rounds);
    }
    note("rounds %lu", rounds);
}

/* A page is mapped elsewhere (with invlpg) in the other mode; a stale translation would show the old page. */
TEST(tlb, "tlb", "at", 1)
{
    u64 va = PLAY + 0x60000;
    volatile u64 *pte = &play_pt[0x60];
    volatile u64 *a = (u64 *)(PLAY + 0x61000), *b = (u64 *)(PLAY + 0x62000);
    *a = 0xaaaa, *b = 0xbbbb;
    emit((u64)a + 0x100, 0xa);
    emit((u64)b + 0x100, 0xb);
    *pte = (u64)a | 3;
    invlpg(va);
    for (u32 i = 0; i < 5; i++) {
        volatile u64 *was = i & 1 ? b : a, *becomes = i & 1 ? a : b;
        check(*(volatile u64 *)va == *was, "page before", *(volatile u64 *)va, *was);
        check(call(va + 0x100) == (was == a ? 0xa : 0xb), "code before", call(va + 0x100), *was & 0xf);
        at("tlb");
        *pte = (u64)becomes | 3;
        invlpg(va);
        check(*(volatile u64 *)va == *becomes, "page after remapping", *(volatile u64 *)va, *becomes);
        at("tlb remapped");
        check(*(volatile u64 *)va == *becomes, "page remapped in the other mode", *(volatile u64 *)va, *becomes);
        check(call(va + 0x100) == (becomes == a ? 0xa : 0xb), "code remapped in the other mode", call(va + 0x100), *becomes & 0xf);
    }
    *pte = va | 3;
    invlpg(va);
}

/* Accessed and dirty bits: set by the first access after clearing, in either mode, and never lost. */
TEST(ptad, "pt-bits", "at", 1)
{
    u64 va = PLAY + 0x70000;
    volatile u64 *pte = &play_pt[0x70];
    volatile u64 *p = (u64 *)va;
    for (int i = 0; i < 3; i++) {
        *p = 1;
        *pte &= ~0x60ul;
        invlpg(va);
        at("pt-bits clear");
        check((*pte & 0x60) == 0, "bits before an access", *pte & 0x60, 0);
        (void)*p;
        check((*pte & 0x60) == 0x20, "bits after a read", *pte & 0x60, 0x20);
        at("pt-bits read");
        check((*pte & 0x60) == 0x20, "bits after a read and a switch", *pte & 0x60, 0x20);
        *p = 2;
        check((*pte & 0x60) == 0x60, "bits after a write", *pte & 0x60, 0x60);
        at("pt-bits written");
        *pte &= ~0x40ul;
        invlpg(va);
        *p = 3;
        check((*pte & 0x60) == 0x60, "bits after clearing dirty and writing", *pte & 0x60, 0x60);
    }
}

/* CR3 with a second set of tables that maps one page differently. */
static u64 pml4b[512] __attribute__((aligned(4096))), pdptb[512] __attribute__((aligned(4096))),
    pdb[512] __attribute__((aligned(4096))), ptb[512] __attribute__((aligned(4096)));
TEST(cr3, "cr3", "at", 1)
{
    u64 va = PLAY + 0x64000, cr3 = read_cr3();
    volatile u64 *p = (u64 *)va;
    memcpy(pml4b, pml4, 4096);
    memcpy(pdptb, (void *)(pml4[0] & ~0xffful), 4096);
    memcpy(pdb, (void *)(pdptb[0] & ~0xffful), 4096);
    memcpy(ptb, play_pt, 4096);
    pml4b[0] = (u64)pdptb | 7;
    pdptb[0] = (u64)pdb | 7;
    pdb[2] = (u64)ptb | 7;
    ptb[0x64] = (PLAY + 0x65000) | 3;
    *p = 0x64, *(volatile u64 *)(PLAY + 0x65000) = 0x65;
    for (int i = 0; i < 4; i++) {
        check(*p == 0x64, "page in the first space", *p, 0x64);
        at("cr3 first");
        write_cr3((u64)pml4b);
        check(*p == 0x65, "page in the second space", *p, 0x65);
        at("cr3 second");
        check(*p == 0x65, "page in the second space after a switch", *p, 0x65);
        write_cr3(cr3);
        check(*p == 0x64, "page back in the first space", *p, 0x64);
    }
}

/* A20: on, addresses with bit 20 stand for themselves; port 0x92 keeps its bit. */
TEST(a20, "a20", "at", 1)
{
    volatile u32 *low = (u32 *)(0x7000ul), *high = (u32 *)(0x107000ul + 0x200000);
    volatile u32 *high1 = (u32 *)(0x307000ul);
    *low = 0x10, *high = 0x20;
    u8 port = inb(0x92);
    at("a20");
    check(inb(0x92) == port, "port 0x92", inb(0x92), port);
    check(*low == 0x10 && *high == 0x20 && *high1 == 0x20, "memory with address bit 20", *high, 0x20);
    *low = 0x30;
    check(*high == 0x20, "memory with address bit 20 after a write", *high, 0x20);
}

/* The gate closed: address bit 20 is 0, so that an odd MiB shows the one below. Stock KVM has no gate. The HPET is in an odd MiB. */
TEST(a20_gate, "a20-gate", "at", 1)
{
    volatile u32 *low = (u32 *)0x7000ul, *high = (u32 *)0x107000ul;
    u8 port = inb(0x92) & ~1;
    *low = 0x10, *high = 0x20;
    outb(0x92, port & ~2);
    u32 bit = inb(0x92) & 2, before = *high;
    at("a20-gate closed");
    u32 after = *high;
    *high = 0x40;
    u32 through = *low;
    outb(0x92, port | 2);
    check(bit == 0, "bit of port 0x92 with A20 closed", bit, 0);
    check(before == 0x10, "A20 closed: what is 1 MiB above", before, 0x10);
    check(after == 0x10, "A20 closed: what is 1 MiB above, after the switch", after, 0x10);
    check(through == 0x40, "A20 closed: what was written 1 MiB above", through, 0x40);
    *low = 0x50, *high = 0x60;
    at("a20-gate open");
    check(*low == 0x50 && *high == 0x60, "memory with the gate open again", *low << 8 | *high, 0x5060);
}

/* A pattern over some megabytes, written in one mode and read in the other. */
TEST(ram, "ram", "at", 1)
{
    u64 *p = (u64 *)0x800000, words = 0x800000 / 8;
    for (int round = 0; round < 2; round++) {
        for (u64 i = 0; i < words; i += 8) {
            p[i] = i * 0x9e3779b97f4a7c15ul + round;
        }
        at("ram");
        for (u64 i = 0; i < words; i += 8) {
            if (p[i] != i * 0x9e3779b97f4a7c15ul + round) {
                fail("word %lu is %lx", i, p[i]);
                break;
            }
        }
    }
}
