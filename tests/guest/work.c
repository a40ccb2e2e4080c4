/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work by the clock, on order (hc.bench=1): how much of one kind of work this
 * machine does.  Speed only; nothing is checked here beyond that it worked.
 *
 * Orders come as lines from the console, and each is answered by one line:
 *
 *   <work> <ms>   RESULT <work> n=<times> ns=<CLOCK_MONOTONIC>
 *   clock         CLOCK ns=<CLOCK_MONOTONIC> source=<clocksource of the kernel>
 *   touch <MiB>   TOUCHED mib=<n>, memory that is kept
 *
 * "ERR work <what>" says what could not be done.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hc.h"

enum { SYSCALLS = 1000, BLOCK = 4096, REPLY_SECONDS = 5 };

static bool fail(const char *what)
{
    hc_line("ERR work %s: %s", what, strerror(errno));
    return false;
}

static bool work_syscall(void)
{
    for (int i = 0; i < SYSCALLS; i++) {
        syscall(SYS_getppid);
    }
    return true;
}

/* A process that is made, becomes another program, ends and is waited for. */
static bool work_fork(void)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        execl("/proc/self/exe", "hybrid-check", "exit", NULL);
        _exit(1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status) {
        return fail("fork");
    }
    return true;
}

static bool work_compute(void)
{
    static bool ready;

    if (!ready) {
        hc_compute_init();
        hc_compute_thread_init(0);
        ready = true;
    }
    hc_compute_round(0);
    return true;
}

static bool work_timer(void)
{
    hc_nap(1);
    return true;
}

/* One block written and one read, past the page cache. */
static bool work_blk(void)
{
    static int disk = -1;
    static void *block;
    static off_t at;

    if (disk < 0) {
        disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
        block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (disk < 0 || block == MAP_FAILED) {
            return fail("blk");
        }
    }
    at = (at + BLOCK) % (1 << 20);
    if (pwrite(disk, block, BLOCK, at) != BLOCK ||
        pread(disk, block, BLOCK, at) != BLOCK) {
        return fail("blk");
    }
    return true;
}

/* The guest's address is the first that QEMU's user network would lease. */
static int net_open(void)
{
    struct timeval limit = { .tv_sec = REPLY_SECONDS };
    struct ifreq request = { .ifr_name = "eth0" };
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int echo = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);

    address->sin_family = AF_INET;
    address->sin_addr.s_addr = inet_addr("10.0.2.15");
    if (control < 0 || echo < 0 || ioctl(control, SIOCSIFADDR, &request)) {
        return -1;
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control, SIOCSIFFLAGS, &request) ||
        setsockopt(echo, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))) {
        return -1;
    }
    close(control);
    return echo;
}

static uint16_t internet_checksum(const void *data, size_t size)
{
    const uint16_t *words = data;
    uint32_t sum = 0;

    for (size_t i = 0; i < size / 2; i++) {
        sum += words[i];
    }
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)~(sum + (sum >> 16));
}

/* One packet to the gateway of QEMU's user network and its answer. */
static bool work_net(void)
{
    static int echo = -1;
    static uint16_t sequence;
    struct sockaddr_in gateway = { .sin_family = AF_INET };
    struct {
        struct icmphdr header;
        uint8_t data[56];
    } out = { .header = { .type = ICMP_ECHO } };
    uint8_t in[256];

    if (echo < 0 && (echo = net_open()) < 0) {
        return fail("net");
    }
    gateway.sin_addr.s_addr = inet_addr("10.0.2.2");
    out.header.un.echo.id = 1;
    out.header.un.echo.sequence = ++sequence;
    out.header.checksum = internet_checksum(&out, sizeof(out));
    if (sendto(echo, &out, sizeof(out), 0, (struct sockaddr *)&gateway,
               sizeof(gateway)) != sizeof(out)) {
        return fail("net");
    }
    for (;;) {
        ssize_t size = recv(echo, in, sizeof(in), 0);
        const struct iphdr *ip = (const struct iphdr *)in;
        const struct icmphdr *icmp;

        if (size < 0) {
            return fail("net");
        }
        icmp = (const struct icmphdr *)(in + ip->ihl * 4);
        if (size >= ip->ihl * 4 + (ssize_t)sizeof(*icmp) &&
            icmp->type == ICMP_ECHOREPLY &&
            icmp->un.echo.sequence == sequence) {
            return true;
        }
    }
}

static const struct work {
    const char *name;
    bool (*once)(void);
    unsigned times;                 /* counted for one call */
} works[] = {
    { "syscall", work_syscall, SYSCALLS },
    { "fork", work_fork, 1 },
    { "compute", work_compute, 1 },
    { "timer", work_timer, 1 },
    { "blk", work_blk, 2 },
    { "net", work_net, 1 },
};

static void run(const struct work *work, uint64_t ms)
{
    uint64_t begin, now, count = 0;

    /* The first call opens what is needed; it is not counted. */
    if (!work->once()) {
        return;
    }
    begin = now = hc_ns(CLOCK_MONOTONIC);
    while (now - begin < ms * 1000000) {
        if (!work->once()) {
            return;
        }
        count += work->times;
        now = hc_ns(CLOCK_MONOTONIC);
    }
    hc_line("RESULT %s n=%llu ns=%llu", work->name, (unsigned long long)count,
            (unsigned long long)(now - begin));
}

static void say_clock(void)
{
    char source[64] = "unknown\n";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/"
                       "current_clocksource", "r");

    if (file) {
        if (!fgets(source, sizeof(source), file)) {
            strcpy(source, "unknown\n");
        }
        fclose(file);
    }
    hc_line("CLOCK ns=%llu source=%.*s",
            (unsigned long long)hc_ns(CLOCK_MONOTONIC),
            (int)strcspn(source, "\n"), source);
}

static void touch(uint64_t mib)
{
    uint8_t *memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        fail("touch");
        return;
    }
    for (uint64_t at = 0; at < mib << 20; at += 4096) {
        *(volatile uint64_t *)(memory + at) = hc_mix(at);
    }
    hc_line("TOUCHED mib=%llu", (unsigned long long)mib);
}

void hc_work_loop(void)
{
    char line[128], name[32];

    while (fgets(line, sizeof(line), stdin)) {
        unsigned long long number = 0;
        bool known = false;

        if (sscanf(line, "%31s %llu", name, &number) < 1) {
            continue;
        }
        for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
            if (!strcmp(name, works[i].name)) {
                run(&works[i], number);
                known = true;
            }
        }
        if (!strcmp(name, "clock")) {
            say_clock();
        } else if (!strcmp(name, "touch")) {
            touch(number);
        } else if (!known) {
            hc_line("ERR work unknown order %s", name);
        }
    }
}
