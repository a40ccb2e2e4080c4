/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Registers, flags, segments, CPUID, MSRs, debug registers, protection and exceptions across a switch.
 */
#include "lib.h"

/* ---- general registers ---- */
/* Both halves leave rsp alone; the first waits in at_nf, which uses rax, rcx and rdx; the second waits here, with them. */
TEST(gpr, "gpr", "at", 1)
{
    static u64 out[16];
    at_begin("gpr");
    asm volatile(
        "push %%rbp\n"
        "mov $0x1111111111111111, %%rbx\n mov $0x2222222222222222, %%rsi\n mov $0x3333333333333333, %%rdi\n"
        "mov $0x4444444444444444, %%rbp\n mov $0x8888888888888888, %%r8\n mov $0x9999999999999999, %%r9\n"
        "mov $0xaaaaaaaaaaaaaaaa, %%r10\n mov $0xbbbbbbbbbbbbbbbb, %%r11\n mov $0xcccccccccccccccc, %%r12\n"
        "mov $0xdddddddddddddddd, %%r13\n mov $0xeeeeeeeeeeeeeeee, %%r14\n mov $0xffffffffffffffff, %%r15\n"
        "call at_nf\n"
        "mov %%rbx, out0(%%rip)\n mov %%rsi, out0+8(%%rip)\n mov %%rdi, out0+16(%%rip)\n mov %%rbp, out0+24(%%rip)\n"
        "mov %%r8, out0+64(%%rip)\n mov %%r9, out0+72(%%rip)\n mov %%r10, out0+80(%%rip)\n mov %%r11, out0+88(%%rip)\n"
        "mov %%r12, out0+96(%%rip)\n mov %%r13, out0+104(%%rip)\n mov %%r14, out0+112(%%rip)\n mov %%r15, out0+120(%%rip)\n"
        "pop %%rbp\n"
        ".pushsection .bss\n .align 8\n out0: .skip 128\n .popsection\n"
        ::: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    asm volatile("lea out0(%%rip), %%rsi; mov $128, %%ecx; rep movsb" :: "D"(out) : "rsi", "rcx", "memory");
    for (int i = 0; i < 16; i++) {
        if (i < 4 || i >= 8) {
            u64 want = 0x1111111111111111ul * (i < 4 ? i + 1 : i);
            check(out[i] == want, "register", out[i], want);
        }
    }
    /* rax, rcx and rdx live, waiting on memory. */
    u64 a, c, d;
    rx_ready = 0;
    uart_irq(1);
    printf("AT gpr2\n");
    asm volatile("sti\n 1: cmpl $0, rx_ready(%%rip)\n je 1b\n cli" : "=a"(a), "=c"(c), "=d"(d)
                 : "a"(0x5555555555555555), "c"(0x6666666666666666), "d"(0x7777777777777777) : "memory", "cc");
    check(a == 0x5555555555555555, "rax", a, 0x5555555555555555);
    check(c == 0x6666666666666666, "rcx", c, 0x6666666666666666);
    check(d == 0x7777777777777777, "rdx", d, 0x7777777777777777);
}

/* ---- flags set by arithmetic immediately before (pitfall 12); arg: case ---- */
#define FLAG_CASES(X) \
    X(0, "mov $0x7fffffff, %%eax; addl $1, %%eax") \
    X(1, "movb $0xff, %%al; addb $1, %%al") \
    X(2, "xorl %%eax, %%eax; subl $1, %%eax") \
    X(3, "movl $5, %%eax; cmpl $5, %%eax") \
    X(4, "stc; movl $0x7fffffff, %%eax; incl %%eax") \
    X(5, "movw $0x8000, %%ax; negw %%ax") \
    X(6, "stc; movq $-1, %%rax; adcq $0, %%rax") \
    X(7, "clc; movl $0x80000000, %%eax; decl %%eax") \
    X(8, "movl $0x81, %%eax; addb $0x81, %%al; std") \
    X(9, "stc; movl $0, %%eax; sbbl $0x7fffffff, %%eax; std") \
    X(10, "movl $0xd5, %%eax; sahf; movb %%al, %%ah; sahf; std") \
    X(11, "pushq $0x40cd7; popfq") \
    X(12, "pushq $0x240002; popfq") \
    X(13, "movl $0xc0000000, %%eax; shll $1, %%eax; cmc") \
    X(14, "xorl %%eax, %%eax; cmpxchgl %%ecx, %%eax")
#define FLAGS_MASK 0x240cd5ul       /* CF PF AF ZF SF DF OF AC ID */
TEST(eflags, "eflags", "at", 1)
{
    u64 want = 0, got = 0, conditions = 0, di = 0;
#define WANT(n, code) if (arg == n) { asm volatile(code "; pushfq; cld; popq %0; pushq $2; popfq" : "=r"(want) :: "rax", "cc", "memory"); }
    FLAG_CASES(WANT)
    at_begin("eflags");
    /* After the wait: flags through pushfq, through conditions and, for DF, through a string instruction. */
#define RUN(n, code) if (arg == n) { \
        asm volatile("movq %2, %%rbx\n" code "\n call at_nf\n" \
                     "setc 0(%%rbx)\n setz 1(%%rbx)\n sets 2(%%rbx)\n seto 3(%%rbx)\n setp 4(%%rbx)\n" \
                     "pushfq\n popq %0\n" \
                     "movq %%rbx, %%rdi\n movq %%rbx, %%rsi\n lodsb\n movq %%rsi, %1\n cld\n pushq $2\n popfq\n" \
                     : "=&r"(got), "=&r"(di) : "r"(&conditions) : "rax", "rbx", "rcx", "rsi", "rdi", "memory", "cc"); \
    }
    FLAG_CASES(RUN)
    uart_irq(0);
    check((got & FLAGS_MASK) == (want & FLAGS_MASK), "flags", got & FLAGS_MASK, want & FLAGS_MASK);
    u64 set = (want & 1) | (want >> 6 & 1) << 8 | (want >> 7 & 1) << 16 | (want >> 11 & 1) << 24 | (want >> 2 & 1) << 32;
    check(conditions == set, "conditions", conditions, set);
    i64 moved = di - (u64)&conditions;
    check(moved == (want & 0x400 ? -1 : 1), "string direction", moved, want & 0x400 ? -1 : 1);
}

/* ---- system registers ---- */
struct dtr { u16 limit; u64 base; } __attribute__((packed));
TEST(sysregs, "sysregs", "at", 1)
{
    struct dtr gdt1, idt1, gdt2, idt2;
    u16 ldt1, tr1, ldt2, tr2;
    u64 cr[5], cr_after[5];
    write_cr2(0x123456789000);
    u64 cr8 = arg & 15;
    write_cr8(cr8);
    cr[0] = read_cr0(), cr[1] = read_cr2(), cr[2] = read_cr3(), cr[3] = read_cr4(), cr[4] = read_cr8();
    asm volatile("sgdt %0; sidt %1; sldt %2; str %3" : "=m"(gdt1), "=m"(idt1), "=m"(ldt1), "=m"(tr1));
    u64 busy1 = tss_desc[0] >> 40 & 0xff;
    at("sysregs");
    cr_after[0] = read_cr0(), cr_after[1] = read_cr2(), cr_after[2] = read_cr3(), cr_after[3] = read_cr4(), cr_after[4] = read_cr8();
    asm volatile("sgdt %0; sidt %1; sldt %2; str %3" : "=m"(gdt2), "=m"(idt2), "=m"(ldt2), "=m"(tr2));
    static const char *const names[] = { "cr0", "cr2", "cr3", "cr4", "cr8" };
    for (int i = 0; i < 5; i++) {
        check(cr[i] == cr_after[i], names[i], cr_after[i], cr[i]);
    }
    check(apic_read(0x80) == cr8 << 4, "TPR", apic_read(0x80), cr8 << 4);
    check(gdt1.base == gdt2.base && gdt1.limit == gdt2.limit, "GDTR", gdt2.base, gdt1.base);
    check(idt1.base == idt2.base && idt1.limit == idt2.limit, "IDTR", idt2.base, idt1.base);
    check(ldt1 == ldt2, "LDTR", ldt2, ldt1);
    check(tr1 == tr2, "TR", tr2, tr1);
    check((tss_desc[0] >> 40 & 0xff) == busy1, "TSS descriptor's type", tss_desc[0] >> 40 & 0xff, busy1);
    write_cr8(0);
}

/* Bases of FS and GS, their selectors and KERNEL_GS_BASE, by use and by MSR. */
TEST(fsgs, "fsgs", "at", 1)
{
    static u64 f[2] = { 0xf0f0, 0xf1f1 }, g[2] = { 0x6060, 0x6161 }, k[2] = { 0x4b4b, 0x4c4c };
    u64 v;
    u16 s;
    wrmsr(0xc0000100, (u64)f);
    wrmsr(0xc0000101, (u64)g);
    wrmsr(0xc0000102, (u64)k);
    at("fsgs");
    asm volatile("mov %%fs:8, %0" : "=r"(v));
    check(v == 0xf1f1, "fs:8", v, 0xf1f1);
    asm volatile("mov %%gs:8, %0" : "=r"(v));
    check(v == 0x6161, "gs:8", v, 0x6161);
    asm volatile("swapgs; mov %%gs:0, %0; swapgs" : "=r"(v));
    check(v == 0x4b4b, "gs:0 after swapgs", v, 0x4b4b);
    asm volatile("mov %%fs, %0" : "=r"(s));
    check(s == 0, "fs", s, 0);
    check(rdmsr(0xc0000100) == (u64)f, "FS_BASE", rdmsr(0xc0000100), (u64)f);
    check(rdmsr(0xc0000101) == (u64)g, "GS_BASE", rdmsr(0xc0000101), (u64)g);
    wrmsr(0xc0000100, 0);
    wrmsr(0xc0000101, 0);
}

/*
 * Segment caches: in 32-bit code DS has base 1 MiB below `target` and a small limit; its descriptor in the table is then
 * overwritten, so that only the hidden part still knows.
 */
static u32 seg_target = 0x5e60600d;
TEST(segcache, "segcache", "at", 1)
{
    u64 save = gdt[5], base = (u64)&seg_target - 0x40;
    u32 got = 0, selector = 0, fault;
    gdt[5] = 0x0040930000000000ul | 0x43 | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;   /* limit 0x43 */
    at_begin("segcache");
    asm volatile(
        "movw $0x28, %%ax\n movw %%ax, %%ds\n movq %4, gdt+0x28\n"
        "movl $0x2b, %%r8d\n"
        "pushq $0x18\n lea 1f(%%rip), %%rax\n pushq %%rax\n lretq\n"
        ".code32\n 1:\n"
        "movw $0x3f8, %%dx\n movb $10, %%al\n outb %%al, %%dx\n"
        "2: movw $0x3fd, %%dx\n inb %%dx, %%al\n testb $1, %%al\n jz 2b\n movw $0x3f8, %%dx\n inb %%dx, %%al\n"
        "movl 0x40, %%ebx\n"
        "movl %%ds, %%esi\n"
        "ljmp $0x08, $3f\n .code64\n 3:\n"
        "movw $0x10, %%ax\n movw %%ax, %%ds\n"
        : "=b"(got), "=S"(selector), "=&a"(fault) : "0"(0), "r"(save) : "rdx", "rcx", "r8", "memory", "cc");
    gdt[5] = save;
    check(got == 0x5e60600d, "32-bit read through ds", got, 0x5e60600d);
    check(selector == 0x28, "ds", selector, 0x28);
}
/* The same, with an access beyond the limit. */
TEST(seglimit, "seglimit", "at", 1)
{
    u64 save = gdt[5], base = (u64)&seg_target - 0x40;
    u32 got = 0;
    gdt[5] = 0x0040930000000000ul | 0x43 | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    at_begin("seglimit");
    exc.vec = -1;
    asm volatile(
        "movw $0x28, %%ax\n movw %%ax, %%ds\n movq %1, gdt+0x28\n"
        "movq $4f, fixup\n"
        "pushq $0x18\n lea 1f(%%rip), %%rax\n pushq %%rax\n lretq\n"
        ".code32\n 1:\n"
        "movw $0x3f8, %%dx\n movb $10, %%al\n outb %%al, %%dx\n"
        "2: movw $0x3fd, %%dx\n inb %%dx, %%al\n testb $1, %%al\n jz 2b\n movw $0x3f8, %%dx\n inb %%dx, %%al\n"
        "movl 0x44, %%ebx\n"
        "4: ljmp $0x08, $3f\n .code64\n 3:\n"
        "movw $0x10, %%ax\n movw %%ax, %%ds\n movq $0, fixup\n"
        : "=&b"(got) : "r"(save) : "rax", "rdx", "rcx", "memory", "cc");
    gdt[5] = save;
    check(exc.vec == 13, "exception beyond the limit", exc.vec, 13);
}

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
    note("leaves %u, highest basic %x, highest extended %x", leaf_count, top, r[0]);
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
static void soft_handler(struct regs *r) { (void)r; db_count++; }
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
            db_count = 0;
            a = enter_user(user_program(user_ints, user_ints_end), USER_STACK, 2);
            check(a == 0x600d, "answer", a, 0x600d);
            check(db_count == 100, "soft interrupts", db_count, 100);
        }
        rounds++;
        progress(rounds);
    }
    handlers[0x81] = 0;
    note("rounds %lu", rounds);
}
