/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is held in memory: code that is rewritten, pages that are shared. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "hc.h"

enum { PAGE = 4096, JIT_ROUNDS = 64, COW_SIZE = 16 * PAGE };

uint8_t *hc_jit_page(void)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED) {
        hc_line("ERR setup no memory for code");
        exit(1);
    }
    return page;
}

/* mov eax, value; ret */
void hc_emit_return(uint8_t *code, uint32_t value)
{
    code[0] = 0xb8;
    memcpy(code + 1, &value, sizeof(value));
    code[5] = 0xc3;
}

/*
 * Write a function, call it, patch its immediate, call it again: a
 * translation that outlives the code it was made from gives an old answer.
 */
void hc_jit_round(uint8_t *page, uint32_t *state)
{
    for (int i = 0; i < JIT_ROUNDS; i++) {
        uint32_t want = (uint32_t)hc_mix(++*state);
        uint8_t *code = page + want % (PAGE / 64) * 64;
        uint32_t got;

        /* Every other time at the same place as before. */
        if (i & 1) {
            code = page;
        }
        hc_emit_return(code, hc_faulty(HC_JIT) ? want ^ 1 : want);
        __asm__ volatile("" ::: "memory");
        got = ((uint32_t (*)(void))code)();
        if (got != want) {
            hc_error(HC_JIT, "offset=%zu got=%08x want=%08x",
                     (size_t)(code - page), got, want);
        }
    }
}

static bool holds(const uint64_t *words, uint64_t seed)
{
    for (size_t i = 0; i < COW_SIZE / sizeof(*words); i++) {
        if (words[i] != seed + i) {
            return false;
        }
    }
    return true;
}

static void fill(uint64_t *words, uint64_t seed)
{
    for (size_t i = 0; i < COW_SIZE / sizeof(*words); i++) {
        words[i] = seed + i;
    }
}

/* The child sees the parent's pages as they were and changes only its own. */
static void fork_round(uint64_t *words, uint64_t seed)
{
    pid_t child;
    int status;

    fill(words, seed);
    child = fork();
    if (child < 0) {
        /* Out of processes or memory is no mistake of the machine. */
        hc_nap(100);
        return;
    }
    if (child == 0) {
        int code = holds(words, seed) ? 0 : 1;

        fill(words, seed ^ 0x5555);
        _exit(holds(words, seed ^ 0x5555) ? code : 2);
    }
    if (!hc_faulty(HC_FORK)) {
        fill(words, seed ^ 0xaaaa);
    }
    if (waitpid(child, &status, 0) != child) {
        hc_error(HC_FORK, "the child vanished");
    } else if (WIFSIGNALED(status)) {
        hc_error(HC_FORK, "the child died of signal %d", WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
        hc_error(HC_FORK, "the child saw wrong memory (%d)",
                 WEXITSTATUS(status));
    }
    if (!holds(words, seed ^ 0xaaaa)) {
        hc_error(HC_FORK, "the parent's memory changed");
    }
}

/* Runs in a process of its own, without threads, so that fork is simple. */
void hc_fork_loop(void)
{
    uint64_t *words = mmap(NULL, COW_SIZE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (words == MAP_FAILED) {
        hc_line("ERR setup no memory for the fork check");
        _exit(1);
    }
    for (uint64_t seed = 1;; seed++) {
        fork_round(words, hc_mix(seed));
        hc_round();
        hc_nap(5);
    }
}
