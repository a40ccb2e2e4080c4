/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk: what was written is read back, past the guest's page cache.
 * Part of it is code that the device puts into memory and that is then run: a
 * translation made before the device wrote gives an old answer.
 * The disk's content is overwritten.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hc.h"

enum { BLOCK = 16384, CODE = 4096, USED = 8 << 20 };

static int disk = -1;
static uint64_t blocks;

bool hc_block_open(void)
{
    uint64_t size = 0;

    disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
    if (disk < 0) {
        if (errno != ENOENT) {
            hc_line("NOTE /dev/vda cannot be written: not checked");
        }
        return false;
    }
    if (ioctl(disk, BLKGETSIZE64, &size) || size < 2 * BLOCK) {
        hc_line("NOTE /dev/vda is too small: not checked");
        return false;
    }
    blocks = (size < USED ? size : USED) / BLOCK;
    return true;
}

static void fill(uint64_t *words, uint64_t seed)
{
    for (size_t i = 0; i < BLOCK / sizeof(*words); i++) {
        words[i] = hc_mix(seed + i);
    }
}

static bool moved(ssize_t done, const char *what, uint64_t block)
{
    if (done == BLOCK) {
        return true;
    }
    hc_error(HC_BLK, "%s block=%llu returned %zd errno=%d", what,
             (unsigned long long)block, done, done < 0 ? errno : 0);
    hc_nap(100);
    return false;
}

static void block_round(uint8_t *written, uint8_t *read_back, uint64_t seed)
{
    uint64_t block = seed % blocks;
    uint32_t value = (uint32_t)(seed >> 32), got, leaf = 0;

    fill((uint64_t *)written, seed);
    hc_emit_return(written, hc_faulty(HC_BLKJIT) ? value ^ 1 : value);
    memset(read_back + CODE, 0, BLOCK - CODE);
    if (!moved(pwrite(disk, written, BLOCK, block * BLOCK), "write", block) ||
        !moved(pread(disk, read_back, BLOCK, block * BLOCK), "read", block)) {
        return;
    }
    if (hc_faulty(HC_BLK)) {
        read_back[BLOCK - 1] ^= 1;
    }
    if (memcmp(written, read_back, BLOCK)) {
        size_t at = 0;

        while (written[at] == read_back[at]) {
            at++;
        }
        hc_error(HC_BLK, "block=%llu offset=%zu got=%02x want=%02x",
                 (unsigned long long)block, at, read_back[at], written[at]);
        return;
    }
    /* Code written by another agent needs a serializing instruction. */
    __asm__ volatile("cpuid" : "+a"(leaf) : : "ebx", "ecx", "edx", "memory");
    got = ((uint32_t (*)(void))read_back)();
    if (got != value) {
        hc_error(HC_BLKJIT, "got=%08x want=%08x", got, value);
    }
}

void *hc_block_thread(void *unused)
{
    uint8_t *memory = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE | PROT_EXEC,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    (void)unused;
    if (memory == MAP_FAILED) {
        hc_line("ERR setup no memory for the disk check");
        exit(1);
    }
    for (uint64_t seed = hc_mix(1);; seed = hc_mix(seed)) {
        block_round(memory, memory + BLOCK, seed);
        hc_round();
        hc_nap(5);
    }
    return NULL;
}
