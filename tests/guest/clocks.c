/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time: no sleeper wakes early, no clock runs backwards, neither on one CPU
 * nor from one CPU to the next.  How late a sleeper wakes is measured, but is
 * never an error: that is speed.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <pthread.h>

#include "hc.h"

enum { BURST = 100, TSC_LEARN = 100 };
#define SECOND 1000000000ull

static _Atomic uint64_t mono_seen, tsc_seen;
static _Atomic bool tsc_differs;

static uint64_t tsc(void)
{
    uint32_t low, high;

    /* Fences, so that the read is neither earlier nor later than it stands. */
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)
                     : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Remember the highest value that any thread has read. */
static void publish(_Atomic uint64_t *seen, uint64_t value)
{
    uint64_t old = atomic_load(seen);

    while (old < value && !atomic_compare_exchange_weak(seen, &old, value)) {
    }
}

void *hc_timer_thread(void *unused)
{
    uint64_t random = 1;

    (void)unused;
    for (;;) {
        uint64_t asked, woken, late, old;
        struct timespec until;

        random = hc_mix(random);
        asked = hc_ns(CLOCK_MONOTONIC) + 1000000 + random % 9000000;
        until.tv_sec = asked / SECOND;
        until.tv_nsec = asked % SECOND;
        if (!hc_faulty(HC_TIMER)) {
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until,
                                   NULL)) {
            }
        }
        woken = hc_ns(CLOCK_MONOTONIC);
        if (woken < asked) {
            hc_error(HC_TIMER, "woken %llu us early",
                     (unsigned long long)(asked - woken) / 1000);
            hc_nap(1);
            continue;
        }
        late = woken - asked;
        old = __atomic_load_n(&hc->late_ns_max, __ATOMIC_RELAXED);
        while (old < late &&
               !__atomic_compare_exchange_n(&hc->late_ns_max, &old, late, true,
                                            __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED)) {
        }
    }
    return NULL;
}

/* Several of these run, on whatever CPU the guest's scheduler chooses. */
void *hc_mono_thread(void *unused)
{
    (void)unused;
    for (;;) {
        for (int i = 0; i < BURST; i++) {
            uint64_t before = atomic_load(&mono_seen);
            uint64_t now = hc_ns(CLOCK_MONOTONIC);

            publish(&mono_seen, now);
            if (hc_faulty(HC_MONO)) {
                now -= SECOND;
            }
            if (now < before) {
                hc_error(HC_MONO, "back by %llu ns",
                         (unsigned long long)(before - now));
            }
        }
        hc_nap(4);
    }
    return NULL;
}

/* A hundred reads; returns by how much the TSC went back at most. */
static uint64_t tsc_burst(bool faulty)
{
    uint64_t back = 0;

    for (int i = 0; i < BURST; i++) {
        uint64_t before = atomic_load(&tsc_seen);
        uint64_t now = tsc();

        publish(&tsc_seen, now);
        if (faulty) {
            now -= SECOND;
        }
        if (now < before && before - now > back) {
            back = before - now;
        }
    }
    hc_nap(3);
    return back;
}

/*
 * One of these runs on each CPU.  There are machines whose TSCs differ from
 * CPU to CPU from the beginning; if the first reads show that, it is said once
 * and is no error.
 */
void *hc_tsc_thread(void *cpu)
{
    int number = (int)(intptr_t)cpu;
    cpu_set_t only;

    CPU_ZERO(&only);
    CPU_SET(number, &only);
    pthread_setaffinity_np(pthread_self(), sizeof(only), &only);
    for (int i = 0; i < TSC_LEARN; i++) {
        if (tsc_burst(false) && !atomic_exchange(&tsc_differs, true)) {
            hc_line("NOTE the TSCs of this machine's CPUs differ: not checked");
        }
    }
    while (!atomic_load(&tsc_differs)) {
        uint64_t back = tsc_burst(hc_faulty(HC_TSC));

        if (back) {
            hc_error(HC_TSC, "cpu=%d back by %llu ticks", number,
                     (unsigned long long)back);
        }
    }
    return NULL;
}
