/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines on the console, each by one write so that they stay whole. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hc.h"

enum { LINES_PER_CHECK = 20 };

const char *const hc_names[HC_CHECKS] = {
    [HC_INT] = "int", [HC_SSE2] = "sse2", [HC_AVX] = "avx", [HC_X87] = "x87",
    [HC_STRING] = "string", [HC_SEGMENT] = "segment", [HC_JIT] = "jit",
    [HC_FORK] = "fork", [HC_TIMER] = "timer", [HC_MONO] = "mono",
    [HC_TSC] = "tsc", [HC_BLK] = "blk", [HC_BLKJIT] = "blkjit",
};

static void put(const char *prefix, const char *format, va_list arguments)
{
    char line[256];
    int used = snprintf(line, sizeof(line), "%s", prefix);
    int more = vsnprintf(line + used, sizeof(line) - used - 1, format,
                         arguments);
    ssize_t done;

    used += more < (int)sizeof(line) - used - 1 ? more
                                                : (int)sizeof(line) - used - 2;
    line[used++] = '\n';
    done = write(STDOUT_FILENO, line, used);
    (void)done;
}

void hc_line(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put("", format, arguments);
    va_end(arguments);
}

/* Count an error; the first few of each check are also printed. */
void hc_error(enum hc_check check, const char *format, ...)
{
    char prefix[32];
    va_list arguments;

    __atomic_add_fetch(&hc->errors, 1, __ATOMIC_RELAXED);
    if (__atomic_fetch_add(&hc->reported[check], 1, __ATOMIC_RELAXED) >=
        LINES_PER_CHECK) {
        return;
    }
    snprintf(prefix, sizeof(prefix), "ERR %s ", hc_names[check]);
    va_start(arguments, format);
    put(prefix, format, arguments);
    va_end(arguments);
}

void hc_round(void)
{
    __atomic_add_fetch(&hc->iters, 1, __ATOMIC_RELAXED);
}

void hc_nap(unsigned ms)
{
    struct timespec nap = { .tv_sec = ms / 1000,
                            .tv_nsec = ms % 1000 * 1000000L };

    nanosleep(&nap, NULL);
}
