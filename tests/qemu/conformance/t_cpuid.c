/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * CPUID and MSRs across a switch (pitfalls 16, 18, 19, 21).
 */
#include "lib.h"

/* ---- CPUID (16, 18, 19) ---- */
struct leaf { u32 leaf, sub, r[4]; };
static struct leaf leaves[600];
static u32 leaf_count;
static void take(u32 leaf, u32 subs)
{
    for (u32 s = 0; s < subs && leaf_count < 600; s++) {
        struct leaf *l = &leaves[leaf_count++];
        l->leaf = leaf, l->sub = s;
        cpuid(leaf, s, l->r);
    }
}
TEST(cpuid, "cpuid", "at", 1)
{
    u32 r[4];
    leaf_count = 0;
    write_cr4(read_cr4() & ~(1ul << 18));
    cpuid(0, 0, r);
    u32 top = r[0];
    for (u32 l = 0; l <= top; l++) {
        take(l, l == 0xd ? 64 : l == 4 || l == 7 || l == 0xb || l == 0x12 || l == 0x14 || l == 0x1d || l == 0x1f ? 6 : 1);
    }
    take(top + 1, 1), take(top + 7, 2), take(0x3fffffff, 1);
    for (u32 l = 0x40000000; l <= 0x40000008; l++) {
        take(l, 1);
    }
    take(0x40000100, 1), take(0x40000101, 1);
    cpuid(0x80000000, 0, r);
    for (u32 l = 0x80000000; l <= r[0]; l++) {
        take(l, l == 0x8000001d ? 5 : 1);
    }
    take(r[0] + 1, 1), take(r[0] + 100, 1), take(0x8fffffff, 1), take(0x80860000, 1), take(0xc0000000, 2), take(0xffffffff, 1);
    u32 sum = 0;
    for (u32 i = 0; i < leaf_count; i++) {
        for (int k = 0; k < 4; k++) {
            sum = (sum ^ leaves[i].r[k]) * 16777619;
        }
    }
    note("leaves %u, highest basic %x, highest extended %x, checksum %x", leaf_count, top, r[0], sum);
    at("cpuid");
    for (u32 i = 0; i < leaf_count; i++) {
        struct leaf *l = &leaves[i];
        cpuid(l->leaf, l->sub, r);
        if (memcmp(r, l->r, 16)) {
            fail("cpuid %x/%x: %x %x %x %x, was %x %x %x %x", l->leaf, l->sub, r[0], r[1], r[2], r[3], l->r[0], l->r[1],
                 l->r[2], l->r[3]);
        }
    }
}
/* Leaf 1 OSXSAVE and leaf 0xD EBX follow CR4 and XCR0, in either mode. */
TEST(cpuid_os, "cpuid-osxsave", "at", 1)
{
    u32 r[4];
    write_cr4(read_cr4() & ~(1ul << 18));
    cpuid(1, 0, r);
    check(!(r[2] & 1 << 27), "OSXSAVE with CR4.OSXSAVE=0", r[2] >> 27 & 1, 0);
    if (!(r[2] & 1 << 26)) {
        note("no XSAVE");
        return;
    }
    at("cpuid-osxsave");
    cpuid(1, 0, r);
    check(!(r[2] & 1 << 27), "OSXSAVE with CR4.OSXSAVE=0, after the switch", r[2] >> 27 & 1, 0);
    write_cr4(read_cr4() | 1 << 18);
    cpuid(1, 0, r);
    check(r[2] >> 27 & 1, "OSXSAVE with CR4.OSXSAVE=1", r[2] >> 27 & 1, 1);
    at("cpuid-osxsave set");
    cpuid(1, 0, r);
    check(r[2] >> 27 & 1, "OSXSAVE with CR4.OSXSAVE=1, after the switch", r[2] >> 27 & 1, 1);
    write_cr4(read_cr4() & ~(1ul << 18));
}
TEST(cpuid_xcr0, "cpuid-xcr0", "at", 1)
{
    u32 r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1 << 28)) {
        note("no AVX");
        return;
    }
    write_cr4(read_cr4() | 1 << 18);
    for (int round = 0; round < 2; round++) {
        asm volatile("xsetbv" :: "c"(0), "a"(1), "d"(0));
        cpuid(0xd, 0, r);
        check(r[1] == 0x240, "size of the XSAVE area with XCR0=1", r[1], 0x240);
        asm volatile("xsetbv" :: "c"(0), "a"(7), "d"(0));
        cpuid(0xd, 0, r);
        check(r[1] == 0x340, "size of the XSAVE area with XCR0=7", r[1], 0x340);
        at("cpuid-xcr0");
        cpuid(0xd, 0, r);
        check(r[1] == 0x340, "size of the XSAVE area with XCR0=7, after the switch", r[1], 0x340);
    }
}

/* ---- MSRs (21) ---- */
/* Both stock accelerators have these. */
static const u32 msrs[] = {
    0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0x174, 0x175, 0x176,
    0x277, 0xfe, 0x2ff, 0x200, 0x201, 0x202, 0x203, 0x20e, 0x20f, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26f, 0x1b, 0x8b, 0x17,
    0x1a0, 0x1d9, 0x17a, 0x17b, 0x400, 0x401, 0xc0010117, 0xc0010015, 0xc001001f, 0x3b, 0xc1, 0x186,
};
/*
 * Here stock KVM faults (vector 13) or has a value, and stock TCG answers 0. The hybrid accelerator leaves it so; a row that does not
 * hold any more is to be moved to the list above.
 */
static const struct { u32 msr; u64 kvm; i64 kvm_vector; u64 tcg; } known[] = {
    { 0x3a, 0, 13, 0 }, { 0x48, 0, 13, 0 }, { 0xda0, 0, 13, 0 }, { 0x10a, 0, 13, 0 }, { 0x38f, 0, 13, 0 },
    { 0xce, 0x80000000, -1, 0 }, { 0xcd, 3, -1, 0 }, { 0x12345, 0, 13, 0 }, { 0x7fffffff, 0, 13, 0 }, { 0xbadbad00, 0, 13, 0 },
};
#define MSRS (sizeof(msrs) / sizeof(*msrs))
static u64 read_msr(u32 msr, i64 *vec)
{
    u32 a = 0, d = 0;
    TRY("rdmsr", ARGS("+a"(a), "+d"(d)), "c"(msr));
    *vec = exc.vec;
    return exc.vec < 0 ? a | (u64)d << 32 : 0;
}
static i64 write_msr(u32 msr, u64 v)
{
    TRY("wrmsr", , ARGS("c"(msr), "a"((u32)v), "d"((u32)(v >> 32))));
    return exc.vec;
}
/* arg 1: a note with each value instead of silence, to compare accelerators by hand. */
TEST(msr, "msr", "at", 1)
{
    static u64 value[MSRS];
    static i64 vec[MSRS];
    u64 star = rdmsr(0xc0000081), pat = rdmsr(0x277);
    wrmsr(0xc0000081, 0x0030000800001234);
    wrmsr(0xc0000082, 0xffffffff81234560);
    wrmsr(0xc0000083, 0xffffffff81234570);
    wrmsr(0xc0000084, 0x47700);
    wrmsr(0xc0000100, 0x12345678000);
    wrmsr(0xc0000101, 0x22345678000);
    wrmsr(0xc0000102, 0x32345678000);
    write_msr(0xc0000103, 0x4321);
    wrmsr(0x174, 0x18);
    wrmsr(0x175, 0x80001000);         /* 32 bits: KVM on AMD keeps no more */
    wrmsr(0x176, 0x80002000);
    wrmsr(0x277, 0x0007010600070106 ^ 0);
    wrmsr(0x200, 0x80000006);
    wrmsr(0x201, 0xff80000800);
    wrmsr(0x259, 0x0606060606060606);
    wrmsr(0x2ff, 0xc06);
    for (u32 i = 0; i < MSRS; i++) {
        value[i] = read_msr(msrs[i], &vec[i]);
        if (arg) {
            note("msr %x = %lx vector %ld", msrs[i], value[i], vec[i]);
        }
    }
    at("msr");
    for (u32 i = 0; i < MSRS; i++) {
        i64 v;
        u64 now = read_msr(msrs[i], &v);
        if (v != vec[i] || now != value[i]) {
            fail("msr %x: %lx vector %ld, was %lx vector %ld", msrs[i], now, v, value[i], vec[i]);
        }
    }
    wrmsr(0xc0000081, star);
    wrmsr(0x277, pat);
    wrmsr(0x2ff, 0);
    wrmsr(0x200, 0);
    wrmsr(0x201, 0);
    wrmsr(0xc0000100, 0);
    wrmsr(0xc0000101, 0);
}
#define KNOWN (sizeof(known) / sizeof(*known))
/* Known differences between the modes, as such: each point is in another mode than the one before. */
TEST(msr_known, "msr-known", "at", 1)
{
    u64 value[2][KNOWN];
    i64 vec[2][KNOWN], write[2][KNOWN];
    for (int round = 0; round < 2; round++) {
        for (u32 i = 0; i < KNOWN; i++) {
            value[round][i] = read_msr(known[i].msr, &vec[round][i]);
            write[round][i] = i >= KNOWN - 3 ? write_msr(known[i].msr, 1) : 0;
        }
        if (!round) {
            at("msr-known");
        }
    }
    int kvm_first = vec[0][KNOWN - 1] == 13;
    for (u32 i = 0; i < KNOWN; i++) {
        int kvm = !kvm_first, tcg = kvm_first;
        if (vec[kvm][i] != known[i].kvm_vector || value[kvm][i] != known[i].kvm) {
            fail("msr %x in kvm: %lx vector %ld, known is %lx vector %ld", known[i].msr, value[kvm][i], vec[kvm][i], known[i].kvm,
                 known[i].kvm_vector);
        }
        if (vec[tcg][i] != -1 || value[tcg][i] != known[i].tcg) {
            fail("msr %x in tcg: %lx vector %ld, known is %lx", known[i].msr, value[tcg][i], vec[tcg][i], known[i].tcg);
        }
        if (i >= KNOWN - 3 && (write[kvm][i] != 13 || write[tcg][i] != -1)) {
            fail("wrmsr %x: vector %ld in kvm, %ld in tcg, known are 13 and -1", known[i].msr, write[kvm][i], write[tcg][i]);
        }
    }
}

/* In tcg: an MSR with a value that TCG takes and KVM does not, so that the switch to kvm fails half-way. */
TEST(msr_refused, "msr-refused", "at", 1)
{
    u64 pat = rdmsr(0x277), reserved = (pat & ~0xfful) | 2;
    i64 vec = write_msr(0x277, reserved);
    check(vec == -1, "vector of wrmsr", vec, -1);
    at("msr-refused");
    check(rdmsr(0x277) == reserved, "PAT after the failure", rdmsr(0x277), reserved);
    wrmsr(0x277, pat);
    at("msr-refused no more");
    check(rdmsr(0x277) == pat, "PAT", rdmsr(0x277), pat);
}
