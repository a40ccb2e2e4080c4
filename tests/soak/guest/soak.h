/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the loads of the soak have in common.  Each says on its standard output,
 * a line by one write so that lines stay whole:
 *
 *   VERIFIED <load> n=<times> ...   so many were compared and are right
 *   ERR <load> <detail>             something is wrong with this machine
 *
 * Only wrong data is an error, never late data.
 */
#ifndef SOAK_H
#define SOAK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SAY_EVERY_MS = 2000 };

static inline void say(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
static inline void say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    int size;
    ssize_t done;

    va_start(arguments, format);
    size = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    if (size > (int)sizeof(line) - 2) {
        size = sizeof(line) - 2;
    }
    line[size++] = '\n';
    done = write(STDOUT_FILENO, line, size);
    (void)done;
}

/* One step of a 64-bit mixing function (splitmix64). */
static inline uint64_t mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

static inline void fill(uint64_t *words, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        words[i] = mix(seed + i);
    }
}

/* Depends on every bit of every word and on their order. */
static inline uint64_t checksum(const uint64_t *words, size_t count)
{
    uint64_t sum = count;

    for (size_t i = 0; i < count; i++) {
        sum = mix(sum ^ words[i]);
    }
    return sum;
}

/* True at most every SAY_EVERY_MS: time to say how many were verified. */
static inline bool time_to_say(void)
{
    static uint64_t said;
    struct timespec now;
    uint64_t ms;

    clock_gettime(CLOCK_MONOTONIC, &now);
    ms = now.tv_sec * 1000ull + now.tv_nsec / 1000000;
    if (said && ms - said < SAY_EVERY_MS) {
        return false;
    }
    said = ms;
    return true;
}

#endif
