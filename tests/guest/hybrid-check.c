/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hybrid-check: start the checks, print a heartbeat, for ever.
 *
 *   READY vcpus=<n>      once, when all references are known
 *   HB <seq> mono_ms=<n> real_ms=<n> late_us_max=<n> iters=<n> errors=<n>
 *   ERR <check> <detail> something is wrong with this machine
 *   NOTE <text>          something is not checked, and why
 *   DONE errors=<n>      after hc.seconds=<n>, before the guest powers off
 *
 * Kernel command line: hc.workers=<n> (default: one per CPU; 0 leaves the
 * guest idle), hc.hb_ms=<n>, hc.blk=0|1, hc.seconds=<n>, hc.bench=1 (work on
 * order instead of all this, see work.c), and for testing the checks themselves
 * hc.inject=<check>[,<check>...]. /init knows hc.hotplug=1: CPUs that come are
 * used.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "hc.h"

#define MS 1000000ull

struct hc_shared *hc;
uint32_t hc_inject;

static char command_line[4096];

/* The number after "name=" on the kernel command line. */
static long option(const char *name, long otherwise)
{
    const char *at = strstr(command_line, name);

    return at ? strtol(at + strlen(name), NULL, 10) : otherwise;
}

static void read_command_line(void)
{
    FILE *file = fopen("/proc/cmdline", "r");

    if (file) {
        size_t size = fread(command_line, 1, sizeof(command_line) - 1, file);

        command_line[size] = '\0';
        fclose(file);
    }
}

static void read_inject(void)
{
    const char *at = strstr(command_line, "hc.inject=");
    char word[256];
    char *rest = word;

    if (!at || sscanf(at, "hc.inject=%255s", word) != 1) {
        return;
    }
    for (char *name; (name = strsep(&rest, ",")) != NULL; ) {
        int check = 0;

        while (check < HC_CHECKS && strcmp(name, hc_names[check])) {
            check++;
        }
        if (check == HC_CHECKS) {
            hc_line("ERR setup unknown check %s", name);
            exit(1);
        }
        hc_inject |= 1u << check;
    }
}

/* This program does nothing that may end so: the machine is wrong. */
static void on_fatal(int number, siginfo_t *info, void *context)
{
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

    hc_line("ERR signal %d rip=%llx address=%p", number,
            (unsigned long long)registers[REG_RIP], info->si_addr);
    _exit(1);
}

static void catch_fatal(void)
{
    static const int numbers[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
    struct sigaction action = { .sa_sigaction = on_fatal,
                                .sa_flags = SA_SIGINFO };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

static void start(void *(*function)(void *), intptr_t argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, function, (void *)argument)) {
        hc_line("ERR setup no thread");
        exit(1);
    }
}

/* Heartbeat and sleeper run before workers: their lateness is the machine's. */
static void be_prompt(void)
{
    struct sched_param parameter = { .sched_priority = 10 };

    pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter);
}

static void *prompt_timer(void *unused)
{
    be_prompt();
    return hc_timer_thread(unused);
}

static void *work(void *number)
{
    hc_compute_thread_init((unsigned)(uintptr_t)number);
    for (;;) {
        hc_compute_round((unsigned)(uintptr_t)number);
        hc_round();
    }
    return NULL;
}

static pid_t start_fork_process(void)
{
    pid_t child = fork();

    if (child == 0) {
        hc_fork_loop();
    }
    return child;
}

static void heartbeat(pid_t fork_process, uint64_t period_ns, long seconds)
{
    uint64_t begin = hc_ns(CLOCK_MONOTONIC);
    uint64_t next = begin;

    for (uint64_t sequence = 0;; sequence++) {
        uint64_t now = hc_ns(CLOCK_MONOTONIC);
        uint64_t late = __atomic_exchange_n(&hc->late_ns_max, 0,
                                            __ATOMIC_RELAXED);
        struct timespec until;

        if (fork_process > 0 && waitpid(fork_process, NULL, WNOHANG) > 0) {
            hc_error(HC_FORK, "the process of the fork check died");
            fork_process = 0;
        }
        hc_line("HB %llu mono_ms=%llu real_ms=%llu late_us_max=%llu "
                "iters=%llu errors=%llu", (unsigned long long)sequence,
                (unsigned long long)(now / MS),
                (unsigned long long)(hc_ns(CLOCK_REALTIME) / MS),
                (unsigned long long)(late / 1000),
                (unsigned long long)__atomic_load_n(&hc->iters,
                                                    __ATOMIC_RELAXED),
                (unsigned long long)__atomic_load_n(&hc->errors,
                                                    __ATOMIC_RELAXED));
        if (seconds && now - begin >= seconds * 1000 * MS) {
            hc_line("DONE errors=%llu", (unsigned long long)hc->errors);
            sync();
            reboot(RB_POWER_OFF);
        }
        /* After a long stop: the next beat on time, not the missed ones. */
        next += period_ns;
        now = hc_ns(CLOCK_MONOTONIC);
        if (next < now) {
            next = now;
        }
        until.tv_sec = next / (1000 * MS);
        until.tv_nsec = next % (1000 * MS);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

int main(int argc, char **argv)
{
    long vcpus = sysconf(_SC_NPROCESSORS_ONLN);
    pid_t fork_process = 0;
    long workers;

    if (argc > 1 && !strcmp(argv[1], "exit")) {
        /* The program that work.c starts. */
        return 0;
    }
    read_command_line();
    catch_fatal();
    hc = mmap(NULL, sizeof(*hc), PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hc == MAP_FAILED) {
        return 1;
    }
    /* /init says how often this program has died before: each is an error. */
    hc->errors = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (option("hc.bench=", 0)) {
        hc_line("READY vcpus=%ld", vcpus);
        hc_work_loop();
        return 0;
    }
    workers = option("hc.workers=", vcpus);
    hc_compute_init();
    read_inject();
    hc_compute_inject();
    hc_line("READY vcpus=%ld", vcpus);

    if (workers > 0) {
        fork_process = start_fork_process();
    }
    for (long i = 0; i < workers; i++) {
        start(work, i);
    }
    for (long i = 0; i < vcpus; i++) {
        start(hc_tsc_thread, i);
        start(hc_mono_thread, i);
    }
    start(prompt_timer, 0);
    if (option("hc.blk=", 1) && hc_block_open()) {
        start(hc_block_thread, 0);
    }
    be_prompt();
    heartbeat(fork_process, (uint64_t)option("hc.hb_ms=", 500) * MS,
              option("hc.seconds=", 0));
    return 0;
}
