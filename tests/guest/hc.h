/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hybrid-check: a program that notices when the machine under it makes a
 * mistake.  Every check compares with a value that cannot depend on speed, so
 * that a slow machine is never taken for a wrong one.
 */
#ifndef HC_H
#define HC_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum hc_check {
    HC_INT, HC_SSE2, HC_AVX, HC_X87, HC_STRING, HC_SEGMENT, HC_JIT,
    HC_FORK, HC_TIMER, HC_MONO, HC_TSC, HC_BLK, HC_BLKJIT,
    HC_CHECKS
};

/* Lives in memory that the forked process shares. */
struct hc_shared {
    uint64_t iters;                 /* rounds completed by all loops */
    uint64_t errors;
    uint64_t reported[HC_CHECKS];   /* error lines printed per check */
    uint64_t late_ns_max;           /* since the last heartbeat */
};

extern struct hc_shared *hc;
extern const char *const hc_names[HC_CHECKS];
/* Checks that are to fail, a bit each; set once the references are known. */
extern uint32_t hc_inject;

static inline bool hc_faulty(enum hc_check check)
{
    return hc_inject & (1u << check);
}

static inline uint64_t hc_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* One step of a 64-bit mixing function (splitmix64). */
static inline uint64_t hc_mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

/* report.c */
void hc_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hc_error(enum hc_check check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void hc_round(void);
void hc_nap(unsigned ms);

/* compute.c: what a CPU holds in its registers */
void hc_compute_init(void);
void hc_compute_inject(void);
void hc_compute_thread_init(unsigned worker);
void hc_compute_round(unsigned worker);

/* memory.c: what is held in memory */
void hc_jit_round(uint8_t *page, uint32_t *state);
uint8_t *hc_jit_page(void);
void hc_emit_return(uint8_t *code, uint32_t value);
void hc_fork_loop(void) __attribute__((noreturn));

/* clocks.c */
void *hc_timer_thread(void *unused);
void *hc_mono_thread(void *unused);
void *hc_tsc_thread(void *cpu);

/* work.c: only with hc.bench=1 */
void hc_work_loop(void);

/* block.c */
bool hc_block_open(void);
void *hc_block_thread(void *unused);

#endif
