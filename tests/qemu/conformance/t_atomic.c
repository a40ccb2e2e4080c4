/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Locked operations of two processors on the same words while switches happen: they add up.
 */
#include "lib.h"

/* Locked operations of two processors on the same words add up. */
static volatile u64 atomic_add, atomic_cas, atomic_xchg16[2] __attribute__((aligned(16)));
static volatile u32 atomic_stop;
static volatile u64 atomic_other;
/* Emulated lab hosts hide CMPXCHG16B: their outer QEMU does it wrong. */
static u32 atomic_has_cx16;
static void atomic_work(void)
{
    __sync_fetch_and_add(&atomic_add, 1);
    u64 v;
    do {
        v = atomic_cas;
    } while (!__sync_bool_compare_and_swap(&atomic_cas, v, v + 1));
    if (!atomic_has_cx16)
        return;
    u64 lo, hi;
    u8 ok;
    do {
        lo = atomic_xchg16[0], hi = atomic_xchg16[1];
        asm volatile("lock cmpxchg16b %1; sete %0" : "=q"(ok), "+m"(*(u64 (*)[2])atomic_xchg16), "+a"(lo), "+d"(hi)
                     : "b"(lo + 1), "c"(hi + 2) : "memory", "cc");
    } while (!ok);
}
static void atomic_runner(void)
{
    u64 n = 0;
    while (!atomic_stop) {
        for (int i = 0; i < 100; i++) {
            atomic_work();
            n++;
        }
    }
    atomic_other = n;
}
TEST(atomics, "atomics", "storm", 2)
{
    u64 n = 0;
    atomic_add = atomic_cas = atomic_xchg16[0] = atomic_xchg16[1] = 0;
    atomic_stop = 0;
    u32 leaf1[4];
    cpuid(1, 0, leaf1);
    atomic_has_cx16 = leaf1[2] & (1u << 13);
    if (!atomic_has_cx16)
        note("no CMPXCHG16B: not checked");
    ap_run(1, atomic_runner);
    storm("atomics");
    while (!stop_requested()) {
        for (int i = 0; i < 500; i++) {
            atomic_work();
            n++;
        }
        progress(n);
    }
    atomic_stop = 1;
    ap_wait(1);
    n += atomic_other;
    check(atomic_add == n, "sum of lock xadd", atomic_add, n);
    check(atomic_cas == n, "sum of cmpxchg", atomic_cas, n);
    if (atomic_has_cx16)
        check(atomic_xchg16[0] == n && atomic_xchg16[1] == 2 * n, "sum of cmpxchg16b", atomic_xchg16[0], n);
    note("operations %lu", n);
}

/* ---- compare and exchange in all widths, within a cache line, across lines and across pages ---- */
static u8 cas_page[2][4096] __attribute__((aligned(4096)));
static struct { volatile u8 b; volatile u16 w; volatile u32 l; volatile u64 q, pair; } cas;
static volatile u32 cas_lock, cas_stop;
static volatile u64 cas_locked[2], cas_other;   /* counted without a locked operation, by whoever has the lock */
#define CAS_LINE ((volatile u64 *)(cas_page[0] + 60))
#define CAS_PAGE ((volatile u32 *)(cas_page[1] - 1))
#define CAS_ADD(type, p) do { \
        type seen_; \
        do { \
            seen_ = *(p); \
        } while (!__sync_bool_compare_and_swap(p, seen_, (type)(seen_ + 1))); \
    } while (0)
static void cas_work(u64 n)
{
    CAS_ADD(u8, &cas.b);
    CAS_ADD(u16, &cas.w);
    CAS_ADD(u32, &cas.l);
    CAS_ADD(u64, &cas.q);
    u32 lo, hi;
    u8 ok;
    do {                                        /* both halves count, the upper one down */
        u64 seen = cas.pair;
        lo = seen, hi = seen >> 32;
        asm volatile("lock cmpxchg8b %1; sete %0" : "=q"(ok), "+m"(cas.pair), "+a"(lo), "+d"(hi) : "b"(lo + 1), "c"(hi - 1) : "memory", "cc");
    } while (!ok);
    while (!__sync_bool_compare_and_swap(&cas_lock, 0, 1)) {
        pause();
    }
    cas_locked[0]++, cas_locked[1] += 2;
    asm volatile("" ::: "memory");
    cas_lock = 0;
    if (!(n & 15)) {                            /* slow: the whole machine stops for each */
        CAS_ADD(u64, CAS_LINE);
        CAS_ADD(u32, CAS_PAGE);
    }
}
static void cas_runner(void)
{
    u64 n = 0;
    while (!cas_stop) {
        for (int i = 0; i < 64; i++) {
            cas_work(n++);
        }
    }
    cas_other = n;
}
TEST(cmpxchg, "cmpxchg", "storm", 2)
{
    u64 n = 0;
    memset((void *)&cas, 0, sizeof(cas));
    memset(cas_page, 0, sizeof(cas_page));
    cas_locked[0] = cas_locked[1] = 0;
    cas_lock = cas_stop = 0;
    ap_run(1, cas_runner);
    storm("cmpxchg");
    while (!stop_requested()) {
        for (int i = 0; i < 64; i++) {
            cas_work(n++);
        }
        progress(n);
    }
    cas_stop = 1;
    ap_wait(1);
    n += cas_other;
    check(cas.b == (u8)n, "sum of 8 bits", cas.b, (u8)n);
    check(cas.w == (u16)n, "sum of 16 bits", cas.w, (u16)n);
    check(cas.l == (u32)n, "sum of 32 bits", cas.l, (u32)n);
    check(cas.q == n, "sum of 64 bits", cas.q, n);
    check((u32)cas.pair == (u32)n && (u32)(cas.pair >> 32) == (u32)-n, "sums of cmpxchg8b", cas.pair, n);
    check(cas_locked[0] == n && cas_locked[1] == 2 * n, "sum under a lock", cas_locked[0], n);
    check(*CAS_LINE == n / 16, "sum across cache lines", *CAS_LINE, n / 16);
    check(*CAS_PAGE == n / 16, "sum across pages", *CAS_PAGE, n / 16);
    note("operations %lu", n);
}
