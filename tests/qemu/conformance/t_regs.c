/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * General registers, flags, system registers and segments across a switch.
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

/* LDTR: not only its selector, also base and limit are used after the switch. */
static u64 data_segment(u64 base) { return 0x00cf93000000fffful | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56; }
static u64 fs_word(void)
{
    u64 v;
    asm volatile("mov %%fs:0, %0" : "=r"(v));
    return v;
}
TEST(ldt, "ldt", "at", 1)
{
    static u64 table[3], first = 0x1d71, second = 0x1d72;
    u64 base = (u64)table;
    u16 ldtr;
    table[1] = data_segment((u64)&first);
    spare_desc[0] = (sizeof(table) - 1) | (base & 0xffffff) << 16 | 0x82ul << 40 | (base >> 24 & 0xff) << 56;
    spare_desc[1] = base >> 32;
    asm volatile("lldt %w0; movl %1, %%fs" :: "r"(SPARE_SELECTOR), "r"(0x0c));
    at("ldt");
    asm volatile("sldt %0" : "=m"(ldtr));
    check(ldtr == SPARE_SELECTOR, "LDTR", ldtr, SPARE_SELECTOR);
    check(fs_word() == first, "word through a segment of the LDT", fs_word(), first);
    table[1] = data_segment((u64)&second);
    check(fs_word() == first, "word before the segment is loaded again", fs_word(), first);
    TRY("movl %0, %%fs", , "r"(0x0c));
    check(exc.vec == -1, "exception of loading from the LDT", exc.vec, -1);
    check(fs_word() == second, "word after the segment was loaded again", fs_word(), second);
    at("ldt loaded again");
    check(fs_word() == second, "word after the second switch", fs_word(), second);
    TRY("movl %0, %%fs", , "r"(0x1c));
    check(exc.vec == 13 && exc.err == 0x1c, "exception of a selector beyond the LDT's limit", exc.vec, 13);
    asm volatile("movl %0, %%fs; lldt %w0" :: "r"(0));
}
