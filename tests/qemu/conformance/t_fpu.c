/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * x87, SSE and AVX state across a switch: contents (pitfalls 1, 9, 19) and how arithmetic behaves after it (11).
 */
#include "lib.h"

struct f80 { u64 mantissa; u16 exponent; } __attribute__((packed));
struct fenv { u32 cw, sw, tw, ip, cs_op, dp, ds; };

static const struct f80 values[8] = {
    { 0x8000000000000000, 0x3fff }, { 0xc90fdaa22168c235, 0x4000 }, { 0x9a209a84fbcff799, 0xbffd },
    { 0xd49a784bcd1b8afe, 0x4000 }, { 0x8000000000000001, 0x7ffe }, { 0xfedcba9876543210, 0xc123 },
    { 0x0000000000000001, 0x0000 }, { 0xc000000000000123, 0x7fff },
};

static void fnstenv(struct fenv *e)
{
    asm volatile("fnstenv %0; fldenv %0" : "=m"(*e));
    /* Undefined upper halves, and the last pointers, which have a test of their own. */
    e->cw &= 0xffff, e->sw &= 0xffff, e->tw &= 0xffff;
    e->ip = e->cs_op = e->dp = e->ds = 0;
}
static void compare_env(const struct fenv *a, const struct fenv *b)
{
    check(b->cw == a->cw, "control word", b->cw, a->cw);
    check(b->sw == a->sw, "status word", b->sw, a->sw);
    check(b->tw == a->tw, "tag word", b->tw, a->tw);
}

/* arg: rotation of the stack, 0 to 7; +8: registers with bit 1 and 2 of their number are freed. */
TEST(x87, "x87", "at", 1)
{
    struct fenv before, after;
    u32 rotation = arg & 7, freed = 0;

    asm volatile("fninit");
    for (int i = 0; i < 8; i++) {
        asm volatile("fldt %0" :: "m"(values[i]));
    }
    if (arg & 8) {
        asm volatile("ffree %st(1); ffree %st(2); ffree %st(6)");
        freed = 1 << 1 | 1 << 2 | 1 << 6;
    }
    for (u32 i = 0; i < rotation; i++) {
        asm volatile("fincstp");
    }
    fnstenv(&before);
    check((before.sw >> 11 & 7) == rotation, "top of stack set up", before.sw >> 11 & 7, rotation);
    at("x87");
    fnstenv(&after);
    compare_env(&before, &after);
    for (u32 i = 0; i < 8; i++) {
        struct f80 v = { 0, 0 };
        u32 original = (i + rotation) & 7;                  /* st(i) now was st(original) before the rotation */
        if (freed >> original & 1) {
            asm volatile("fincstp");
            continue;
        }
        asm volatile("fstpt %0" : "=m"(v));
        const struct f80 *want = &values[7 - original];
        check(v.mantissa == want->mantissa && v.exponent == want->exponent, "st(i) mantissa", v.mantissa, want->mantissa);
        check(v.exponent == want->exponent, "st(i) exponent", v.exponent, want->exponent);
    }
    asm volatile("fninit");
}

/* MMX aliases the physical registers, so order and rotation show in another way. arg: rotation before. */
TEST(mmx, "mmx", "at", 1)
{
    u64 out[8];
    asm volatile("fninit");
    for (u32 i = 0; i < (arg & 7); i++) {
        asm volatile("fincstp");
    }
#define LOAD(n) asm volatile("movq %0, %%mm" #n :: "m"((u64){ 0x1111111111111111ul * (n + 1) }))
    LOAD(0); LOAD(1); LOAD(2); LOAD(3); LOAD(4); LOAD(5); LOAD(6); LOAD(7);
    at("mmx");
#define STORE(n) asm volatile("movq %%mm" #n ", %0" : "=m"(out[n]))
    STORE(0); STORE(1); STORE(2); STORE(3); STORE(4); STORE(5); STORE(6); STORE(7);
    for (int i = 0; i < 8; i++) {
        check(out[i] == 0x1111111111111111ul * (i + 1), "mm register", out[i], 0x1111111111111111ul * (i + 1));
    }
    asm volatile("emms; fninit");
}

static void x87_compute(u16 cw, struct f80 out[4], u16 *sw)
{
    int i_out;
    static const double third_a = 0;
    (void)third_a;
    asm volatile("fldcw %0" :: "m"(cw));
    asm volatile("fnclex; fld1; fldpi; fdivrp; fstpt %0" : "=m"(out[0]));
    asm volatile("fldpi; fchs; fsqrt; fstpt %0" : "=m"(out[1]));            /* invalid: default NaN */
    asm volatile("fldpi; fldl2e; fmulp; fchs; fstpt %0" : "=m"(out[2]));
    asm volatile("fldpi; fchs; fistpl %0" : "=m"(i_out));
    out[3] = (struct f80) { (u32)i_out, 0 };
    asm volatile("fnstsw %0" : "=m"(*sw));
}
/* arg: rounding control 0 to 3, + 4 * precision control (0, 2 or 3). The control word is loaded before the switch. */
TEST(x87_round, "x87-round", "at", 1)
{
    u16 cw = 0x7f | (arg & 3) << 10 | (arg >> 2 & 3) << 8 | 0x40, sw1, sw2, now;
    struct f80 before[4], after[4];
    asm volatile("fninit; fincstp; fincstp; fincstp");
    x87_compute(cw, before, &sw1);
    at("x87-round");
    asm volatile("fnstcw %0" : "=m"(now));
    check(now == cw, "control word", now, cw);
    /* fldcw of the same value might mend what the switch broke: compute once without it. */
    struct f80 raw;
    asm volatile("fld1; fldpi; fdivrp; fstpt %0" : "=m"(raw));
    check(raw.mantissa == before[0].mantissa, "quotient's mantissa", raw.mantissa, before[0].mantissa);
    x87_compute(cw, after, &sw2);
    for (int i = 0; i < 4; i++) {
        check(after[i].mantissa == before[i].mantissa, "mantissa", after[i].mantissa, before[i].mantissa);
        check(after[i].exponent == before[i].exponent, "exponent", after[i].exponent, before[i].exponent);
    }
    check(sw1 == sw2, "status word", sw2, sw1);
    asm volatile("fninit");
}

/* An unmasked exception is pending at the switch and must be raised by the next waiting instruction. */
TEST(x87_pending, "x87-pending", "at", 1)
{
    u16 cw = 0x37b, sw;
    asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp" :: "m"(cw));
    at("x87-pending");
    asm volatile("fnstsw %0" : "=m"(sw));
    check((sw & 0x84) == 0x84, "status word's ES and ZE", sw, 0x84);
    TRY("fwait", , );
    check(exc.vec == 16, "exception of fwait", exc.vec, 16);
    asm volatile("fnclex; fninit");
}

/* Sticky x87 exception flags raised before the switch. */
TEST(x87_flags, "x87-flags", "at", 1)
{
    u16 before, after;
    struct f80 v;
    asm volatile("fninit; fld1; fldpi; fdivrp; fstpt %0; fnstsw %1" : "=m"(v), "=m"(before));
    at("x87-flags");
    asm volatile("fnstsw %0" : "=m"(after));
    check(before == after && (after & 0x20), "status word", after, before);
    asm volatile("fninit");
}

/* Last instruction, data and opcode pointers. Not every processor (and not every emulator) keeps them: a note, unless arg. */
TEST(x87_pointers, "x87-pointers", "at", 1)
{
    static u8 a[512] __attribute__((aligned(16))), b[512] __attribute__((aligned(16)));
    asm volatile("fninit; fldt %1; fxsave64 %0" : "=m"(a) : "m"(values[0]));
    at("x87-pointers");
    asm volatile("fxsave64 %0" : "=m"(b));
    u64 ip1 = *(u64 *)(a + 8), ip2 = *(u64 *)(b + 8), dp1 = *(u64 *)(a + 16), dp2 = *(u64 *)(b + 16);
    if (arg) {
        check(ip1 == ip2 && ip1, "last instruction pointer", ip2, ip1);
        check(dp1 == dp2 && dp1, "last data pointer", dp2, dp1);
        check(*(u16 *)(a + 6) == *(u16 *)(b + 6), "last opcode", *(u16 *)(b + 6), *(u16 *)(a + 6));
    } else {
        note("x87 pointers before %lx %lx, after %lx %lx", ip1, dp1, ip2, dp2);
    }
    asm volatile("fninit");
}

/* ---- SSE ---- */
static u32 get_mxcsr(void)
{
    u32 v;
    asm volatile("stmxcsr %0" : "=m"(v));
    return v;
}
static void set_mxcsr(u32 v) { asm volatile("ldmxcsr %0" :: "m"(v)); }

TEST(xmm, "xmm", "at", 1)
{
    static u64 in[32] __attribute__((aligned(16))), out[32] __attribute__((aligned(16)));
    for (int i = 0; i < 32; i++) {
        in[i] = 0x0123456789abcdeful * (i + 3);
    }
    set_mxcsr(0x1f80);
#define EACH16(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define XLOAD(n) asm volatile("movups %0, %%xmm" #n :: "m"(in[2 * n]));
#define XSTORE(n) asm volatile("movups %%xmm" #n ", %0" : "=m"(out[2 * n]), "=m"(out[2 * n + 1]));
    EACH16(XLOAD)
    at("xmm");
    EACH16(XSTORE)
    for (int i = 0; i < 32; i++) {
        check(in[i] == out[i], "half of an xmm register", out[i], in[i]);
    }
    check(get_mxcsr() == 0x1f80, "mxcsr", get_mxcsr(), 0x1f80);
}

static void sse_compute(u64 out[6])
{
    static const u64 one = 0x3ff0000000000000, three = 0x4008000000000000, tiny = 0x3c00000000000000,
        half5 = 0x4004000000000000, minus_half5 = 0xc004000000000000, denormal = 0x000000000000beef;
    asm volatile("movsd %1, %%xmm0; divsd %2, %%xmm0; movsd %%xmm0, %0" : "=m"(out[0]) : "m"(one), "m"(three));
    asm volatile("movsd %1, %%xmm0; addsd %2, %%xmm0; movsd %%xmm0, %0" : "=m"(out[1]) : "m"(one), "m"(tiny));
    asm volatile("movsd %1, %%xmm0; subsd %2, %%xmm0; movsd %%xmm0, %0" : "=m"(out[2]) : "m"(one), "m"(tiny));
    asm volatile("cvtsd2si %1, %0" : "=r"(out[3]) : "m"(half5));
    asm volatile("cvtsd2si %1, %0" : "=r"(out[4]) : "m"(minus_half5));
    asm volatile("movsd %1, %%xmm0; addsd %1, %%xmm0; movsd %%xmm0, %0" : "=m"(out[5]) : "m"(denormal));
}
/* arg: rounding control 0 to 3, + 4 for flush-to-zero and denormals-are-zero. */
TEST(sse_round, "sse-round", "at", 1)
{
    u64 before[6], after[6];
    u32 mxcsr = 0x1f80 | (arg & 3) << 13 | (arg & 4 ? 0x8040 : 0);
    static const u64 quotient[4] = { 0x3fd5555555555555, 0x3fd5555555555555, 0x3fd5555555555556, 0x3fd5555555555555 };
    set_mxcsr(mxcsr);
    sse_compute(before);
    check(before[0] == quotient[arg & 3], "1/3 before", before[0], quotient[arg & 3]);
    at("sse-round");
    sse_compute(after);
    for (int i = 0; i < 6; i++) {
        check(after[i] == before[i], "result", after[i], before[i]);
    }
    check((get_mxcsr() & ~0x3f) == mxcsr, "mxcsr", get_mxcsr(), mxcsr);
    set_mxcsr(0x1f80);
}

/* Sticky flags raised before the switch are seen after it, and none appears that was cleared. */
TEST(sse_flags, "sse-flags", "at", 1)
{
    static const u64 one = 0x3ff0000000000000, three = 0x4008000000000000, zero = 0;
#define RAISE() asm volatile("movsd %0, %%xmm0; divsd %1, %%xmm0; movsd %0, %%xmm0; divsd %2, %%xmm0" :: "m"(one), "m"(three), "m"(zero))
    set_mxcsr(0x1f80);
    RAISE();
    at("sse-flags raised");
    check((get_mxcsr() & 0x3f) == 0x24, "flags after inexact and division by zero", get_mxcsr() & 0x3f, 0x24);
    set_mxcsr(0x1f80);
    at("sse-flags cleared");
    check(get_mxcsr() == 0x1f80, "flags after clearing", get_mxcsr(), 0x1f80);
    RAISE();
    check((get_mxcsr() & 0x3f) == 0x24, "flags raised again", get_mxcsr() & 0x3f, 0x24);
    set_mxcsr(0x1f80);
}

/* An unmasked SIMD exception after the switch. */
TEST(sse_unmasked, "sse-unmasked", "at", 1)
{
    static const u64 one = 0x3ff0000000000000, zero = 0;
    set_mxcsr(0x1f80 & ~0x200);
    at("sse-unmasked");
    TRY("movsd %0, %%xmm0; divsd %1, %%xmm0", , ARGS("m"(one), "m"(zero)));
    check(exc.vec == 19, "exception of divsd", exc.vec, 19);
    set_mxcsr(0x1f80);
}

/* ---- AVX and XSAVE ---- */
static int avx_on(void)
{
    u32 r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1 << 26)) {
        note("no XSAVE");
        return 0;
    }
    write_cr4(read_cr4() | 1 << 18);
    if (!(r[2] & 1 << 28)) {
        note("no AVX");
        asm volatile("xsetbv" :: "c"(0), "a"(3), "d"(0));
        return 0;
    }
    asm volatile("xsetbv" :: "c"(0), "a"(7), "d"(0));
    /* An emulated host may fail to intercept XSETBV; then the value is gone at the guest's next exit: see the test xcr0. */
    inb(COM1 + 7);
    asm volatile("xgetbv" : "=a"(r[0]), "=d"(r[3]) : "c"(0));
    if (r[0] != 7) {
        note("XCR0 does not hold");
        return 0;
    }
    return 1;
}
static u64 ymm_in[64] __attribute__((aligned(32))), ymm_out[64] __attribute__((aligned(32)));
#define YLOAD(n) asm volatile("vmovups %0, %%ymm" #n :: "m"(ymm_in[4 * n]));
#define YSTORE(n) asm volatile("vmovups %%ymm" #n ", %0" : "=m"(ymm_out[4 * n]) :: "memory");
static void ymm_check(const char *what)
{
    memset(ymm_out, 0, sizeof(ymm_out));
    EACH16(YSTORE)
    for (int i = 0; i < 64; i++) {
        check(ymm_in[i] == ymm_out[i], what, ymm_out[i], ymm_in[i]);
    }
}
static void ymm_pattern(u64 seed)
{
    for (int i = 0; i < 64; i++) {
        ymm_in[i] = seed * (i + 5);
    }
}
/* Does XCR0 hold what XSETBV wrote, over an exit to the hypervisor? An emulated host may fail to intercept it. */
TEST(xcr0, "xcr0", "at", 1)
{
    u32 a, d, c, r[4];
    avx_on();
    cpuid(1, 0, r);
    if (!(r[2] & 1 << 28)) {
        return;
    }
    asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    at("xcr0");
    asm volatile("xgetbv" : "=a"(c), "=d"(d) : "c"(0));
    check(a == 7 && c == 7, "XCR0", a << 8 | c, 0x707);
    TRY("vxorps %%ymm0, %%ymm0, %%ymm0", , );
    check(exc.vec == -1, "exception of an AVX instruction", exc.vec, -1);
}
TEST(ymm, "ymm", "at", 1)
{
    if (!avx_on()) {
        return;
    }
    ymm_pattern(0x0123456789abcdef);
    EACH16(YLOAD)
    at("ymm");
    ymm_check("quarter of a ymm register");
}

/* Registers that were in their initial state at the first switch and are first used after it (XINUSE, pitfall 9). */
TEST(xinuse, "xinuse", "at", 1)
{
    static u8 area[4096] __attribute__((aligned(64)));
    int avx = avx_on();
    if (!(read_cr4() & 1 << 18)) {
        return;
    }
    memset(area, 0, sizeof(area));
    *(u16 *)area = 0x37f;
    *(u32 *)(area + 24) = 0x1f80;
    asm volatile("xrstor64 %0" :: "m"(area), "a"(7), "d"(0));
    at("xinuse initial");
    ymm_pattern(0x1032547698badcfe);
    if (avx) {
        EACH16(YLOAD)
    }
    asm volatile("fld1; fldpi");
    at("xinuse loaded");
    if (avx) {
        ymm_check("ymm register first used after a switch");
    }
    u16 sw;
    struct f80 pi;
    asm volatile("fnstsw %0; fstpt %1; fninit" : "=m"(sw), "=m"(pi));
    check((sw >> 11 & 7) == 6, "top of stack", sw >> 11 & 7, 6);
    check(pi.mantissa == 0xc90fdaa22168c235, "pi", pi.mantissa, 0xc90fdaa22168c235);
}

/* The XSAVE image has the same layout and contents (pitfall 19); XCR0 survives. */
TEST(xsave, "xsave", "at", 1)
{
    static u8 a[4096] __attribute__((aligned(64))), b[4096] __attribute__((aligned(64)));
    u32 r[4], x1, x2, d;
    avx_on();
    if (!(read_cr4() & 1 << 18)) {
        return;
    }
    asm volatile("xgetbv" : "=a"(x1), "=d"(d) : "c"(0));
    ymm_pattern(0x55aa33cc0ff01ee1);
    if (x1 & 4) {
        EACH16(YLOAD)
    }
    asm volatile("fninit; fld1; fldpi; fldl2e");
    memset(a, 0xee, sizeof(a));
    memset(b, 0xee, sizeof(b));
    memset(a + 512, 0, 64);
    memset(b + 512, 0, 64);
    cpuid(0xd, 0, r);
    asm volatile("xsave64 %0" : "=m"(a) : "a"(x1), "d"(0));
    at("xsave");
    asm volatile("xgetbv" : "=a"(x2), "=d"(d) : "c"(0));
    check(x1 == x2, "XCR0", x2, x1);
    asm volatile("xsave64 %0" : "=m"(b) : "a"(x1), "d"(0));
    memset(a + 6, 0, 18);           /* opcode and pointers: x87-pointers */
    memset(b + 6, 0, 18);
    int at_byte = memcmp(a, b, sizeof(a));
    if (at_byte) {
        fail("XSAVE image differs at byte %d: %u, was %u", at_byte - 1, b[at_byte - 1], a[at_byte - 1]);
    }
    asm volatile("fninit");
}

/* Random switches while x87, SSE and AVX work on known data; ends when the harness says so. */
TEST(fpu_storm, "fpu-storm", "storm", 1)
{
    u64 want[6], got[6], rounds = 0;
    struct f80 want87[4], got87[4];
    u16 sw;
    int avx = avx_on();
    storm("fpu-storm");
    while (!stop_requested()) {
        u32 rc = rounds & 3;
        for (int i = 0; i < 200; i++) {
            set_mxcsr(0x1f80 | rc << 13);
            asm volatile("fninit");
            for (u32 t = 0; t < (rounds & 7); t++) {
                asm volatile("fdecstp");
            }
            sse_compute(i ? got : want);
            x87_compute(0x37f | rc << 10, i ? got87 : want87, &sw);
            if (i && memcmp(got, want, sizeof(want))) {
                fail("SSE result differs in round %lu", rounds);
            }
            if (i && memcmp(got87, want87, sizeof(want87))) {
                fail("x87 result differs in round %lu", rounds);
            }
            if (avx) {
                ymm_pattern(rounds * 77 + i);
                EACH16(YLOAD)
                ymm_check("ymm register");
            }
        }
        rounds++;
        progress(rounds);
    }
    set_mxcsr(0x1f80);
    asm volatile("fninit");
    note("rounds %lu", rounds);
}
