/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a CPU holds in its registers: every worker computes the same again. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hc.h"

enum { MAX_WORKERS = 64, STRING_SIZE = 16384, STRING_STEP = 67 };

/* Long enough that a switch mostly falls into a kernel, not between two. */
enum { INT_N = 6000, SSE2_N = 2500, AVX_N = 2000, X87_N = 12000 };

void hc_kernel_int(uint64_t iterations, uint64_t *result);
void hc_kernel_sse2(uint64_t iterations, uint8_t result[16 * 16]);
void hc_kernel_avx(uint64_t iterations, uint8_t result[16 * 32]);
void hc_kernel_x87(uint64_t iterations, uint8_t result[8 * 10]);
extern uint64_t hc_fault_int, hc_fault_sse2[2], hc_fault_avx[4];
extern double hc_fault_x87;

static uint64_t ref_int;
static uint8_t ref_sse2[16 * 16], ref_avx[16 * 32], ref_x87[8 * 10];
static bool have_avx;

static struct worker {
    uint64_t gs_cookie;             /* what %gs:0 must read */
    uint64_t gs_wrong;
    uint8_t string[STRING_SIZE];
    uint8_t *jit;
    uint32_t jit_state;
} workers[MAX_WORKERS];

void hc_compute_init(void)
{
    hc_kernel_int(INT_N, &ref_int);
    hc_kernel_sse2(SSE2_N, ref_sse2);
    hc_kernel_x87(X87_N, ref_x87);
    have_avx = __builtin_cpu_supports("avx");
    if (have_avx) {
        hc_kernel_avx(AVX_N, ref_avx);
    } else {
        hc_line("NOTE no AVX on this CPU: not checked");
    }
}

/* Disturb the kernels that are to fail, each in a single bit. */
void hc_compute_inject(void)
{
    if (hc_faulty(HC_INT)) {
        hc_fault_int = 1;
    }
    if (hc_faulty(HC_SSE2)) {
        hc_fault_sse2[1] = 1;
    }
    if (hc_faulty(HC_AVX)) {
        hc_fault_avx[3] = 1;
    }
    if (hc_faulty(HC_X87)) {
        hc_fault_x87 = 1.0 + 0x1p-52;
    }
}

void hc_compute_thread_init(unsigned number)
{
    struct worker *worker = &workers[number % MAX_WORKERS];

    worker->gs_cookie = hc_mix(number + 1);
    worker->gs_wrong = ~worker->gs_cookie;
    worker->jit = hc_jit_page();
    worker->jit_state = number;
    syscall(SYS_arch_prctl, ARCH_SET_GS,
            hc_faulty(HC_SEGMENT) ? &worker->gs_wrong : &worker->gs_cookie);
}

static void check_vector(enum hc_check check, const uint8_t *got,
                         const uint8_t *want, size_t size, size_t width)
{
    if (memcmp(got, want, size) == 0) {
        return;
    }
    for (size_t at = 0; at < size; at += width) {
        if (memcmp(got + at, want + at, width)) {
            hc_error(check, "register=%zu got=%016llx want=%016llx", at / width,
                     (unsigned long long)*(const uint64_t *)(got + at),
                     (unsigned long long)*(const uint64_t *)(want + at));
            return;
        }
    }
}

static void check_segment(const struct worker *worker)
{
    uint64_t got;

    for (int i = 0; i < 2000; i++) {
        __asm__ volatile("movq %%gs:0, %0" : "=r"(got));
        if (got != worker->gs_cookie) {
            hc_error(HC_SEGMENT, "gs=%016llx want=%016llx",
                     (unsigned long long)got,
                     (unsigned long long)worker->gs_cookie);
            return;
        }
    }
}

/* A long overlapping copy downwards: the direction flag is set all the time. */
static void check_string(struct worker *worker)
{
    uint8_t *buffer = worker->string;
    size_t count = STRING_SIZE - STRING_STEP;
    const uint8_t *from = buffer + count - 1;
    uint8_t *to = buffer + STRING_SIZE - 1;
    uint64_t left = count;

    for (size_t i = 0; i < STRING_SIZE; i++) {
        buffer[i] = (uint8_t)(i * 31 + (i >> 8));
    }
    __asm__ volatile("std; rep movsb; cld"
                     : "+S"(from), "+D"(to), "+c"(left) : : "memory", "cc");
    if (hc_faulty(HC_STRING)) {
        buffer[STRING_SIZE / 2] ^= 4;
    }
    if (left != 0 || from != buffer - 1 || to != buffer + STRING_STEP - 1) {
        hc_error(HC_STRING, "stopped with %llu of %zu left",
                 (unsigned long long)left, count);
    }
    for (size_t i = STRING_STEP; i < STRING_SIZE; i++) {
        size_t was = i - STRING_STEP;
        uint8_t want = (uint8_t)(was * 31 + (was >> 8));

        if (buffer[i] != want) {
            hc_error(HC_STRING, "offset=%zu got=%02x want=%02x", i, buffer[i],
                     want);
            return;
        }
    }
}

void hc_compute_round(unsigned number)
{
    struct worker *worker = &workers[number % MAX_WORKERS];
    uint8_t vector[16 * 32];
    uint64_t got;

    hc_kernel_int(INT_N, &got);
    if (got != ref_int) {
        hc_error(HC_INT, "got=%016llx want=%016llx", (unsigned long long)got,
                 (unsigned long long)ref_int);
    }
    hc_kernel_sse2(SSE2_N, vector);
    check_vector(HC_SSE2, vector, ref_sse2, sizeof(ref_sse2), 16);
    if (have_avx) {
        hc_kernel_avx(AVX_N, vector);
        check_vector(HC_AVX, vector, ref_avx, sizeof(ref_avx), 32);
    }
    hc_kernel_x87(X87_N, vector);
    check_vector(HC_X87, vector, ref_x87, sizeof(ref_x87), 10);
    check_segment(worker);
    check_string(worker);
    hc_jit_round(worker->jit, &worker->jit_state);
}
