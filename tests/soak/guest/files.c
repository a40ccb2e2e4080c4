/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * soak-files: files that are written, renamed over older ones, truncated and
 * read back, with a checksum in each.
 *
 *   soak-files FOLDER SEED          until SIGTERM; then all files once more
 *   soak-files FOLDER SEED fault    one byte of a file is changed on the way
 *   soak-files FOLDER               verify what another run has left, and end
 *
 * Ends with status 1 after an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "soak.h"

enum { SLOTS = 24, MAX_WORDS = 16384, MAGIC = 0x536f616b, HEADER = 4 };

/* What a file begins with. */
struct header {
    uint64_t magic;
    uint64_t generation;
    uint64_t words;                 /* that follow */
    uint64_t sum;                   /* of these */
};

static uint64_t generations[SLOTS]; /* 0: there is no such file */
static uint64_t buffer[HEADER + MAX_WORDS + 1];
static uint64_t verified, errors, seed;
static volatile sig_atomic_t stopped;

static void on_term(int number)
{
    (void)number;
    stopped = 1;
}

static bool wrong(int slot, const char *what, uint64_t got, uint64_t want)
{
    errors++;
    say("ERR files slot=%d %s got=%llx want=%llx", slot, what,
        (unsigned long long)got, (unsigned long long)want);
    return false;
}

static bool failed(int slot, const char *what)
{
    return wrong(slot, what, errno, 0);
}

static void name_of(char *name, size_t size, int slot, const char *suffix)
{
    snprintf(name, size, "f%d%s", slot, suffix);
}

static uint64_t content_seed(int slot, uint64_t generation)
{
    return mix(seed ^ mix(generation * SLOTS + slot));
}

/* Through a shared mapping or by calls, as chance has it. */
static bool put(int file, const uint8_t *data, size_t size, uint64_t chance)
{
    if (chance & 1) {
        uint8_t *map;

        if (ftruncate(file, size)) {
            return false;
        }
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) {
            return false;
        }
        memcpy(map, data, size);
        return !munmap(map, size);
    }
    for (size_t at = 0; at < size; ) {
        size_t most = 1 + (chance = mix(chance)) % 20000;
        ssize_t done = pwrite(file, data + at,
                              size - at < most ? size - at : most, at);

        if (done <= 0) {
            return false;
        }
        at += done;
    }
    return true;
}

static bool write_slot(int slot, uint64_t generation, uint64_t chance)
{
    struct header *header = (struct header *)buffer;
    uint64_t words = mix(chance) % (MAX_WORDS + 1);
    char name[32], new[32];
    int file;

    fill(buffer + HEADER, words, content_seed(slot, generation));
    *header = (struct header) { MAGIC, generation, words,
                                checksum(buffer + HEADER, words) };
    name_of(name, sizeof(name), slot, "");
    name_of(new, sizeof(new), slot, ".new");
    file = open(new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) {
        return failed(slot, "open errno");
    }
    if (!put(file, (uint8_t *)buffer, (HEADER + words) * 8, chance)) {
        close(file);
        return failed(slot, "write errno");
    }
    if (fsync(file) || close(file) || rename(new, name)) {
        return failed(slot, "rename errno");
    }
    generations[slot] = generation;
    return true;
}

/* Read a file into the buffer from the disk, not from the page cache. */
static ssize_t read_slot(int slot)
{
    char name[32];
    size_t size = 0;
    ssize_t done;
    int file;

    name_of(name, sizeof(name), slot, "");
    file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return -1;
    }
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    while ((done = read(file, (uint8_t *)buffer + size,
                        sizeof(buffer) - size)) > 0) {
        size += done;
    }
    close(file);
    return done < 0 ? -1 : (ssize_t)size;
}

/* Compare a file with its own checksum, and with what was written if known. */
static bool verify(int slot, bool known)
{
    const struct header *header = (const struct header *)buffer;
    ssize_t size = read_slot(slot);
    uint64_t sum, word;

    if (size < 0) {
        if (!known && errno == ENOENT) {
            return true;
        }
        return failed(slot, "read errno");
    }
    if ((size_t)size < sizeof(*header) || header->magic != MAGIC) {
        return wrong(slot, "header", header->magic, MAGIC);
    }
    if (header->words > MAX_WORDS || (HEADER + header->words) * 8 !=
        (uint64_t)size) {
        return wrong(slot, "size", size, (HEADER + header->words) * 8);
    }
    sum = checksum(buffer + HEADER, header->words);
    if (sum != header->sum) {
        return wrong(slot, "checksum", sum, header->sum);
    }
    if (known && header->generation != generations[slot]) {
        return wrong(slot, "generation", header->generation,
                     generations[slot]);
    }
    for (uint64_t i = 0; known && i < header->words; i++) {
        word = mix(content_seed(slot, header->generation) + i);
        if (buffer[HEADER + i] != word) {
            return wrong(slot, "word", buffer[HEADER + i], word);
        }
    }
    verified++;
    return true;
}

/* Change the last byte of a file. */
static void spoil(int slot)
{
    char name[32];
    off_t at = -1;
    uint8_t byte;
    int file;

    name_of(name, sizeof(name), slot, "");
    file = open(name, O_RDWR | O_CLOEXEC);
    if (file >= 0) {
        at = lseek(file, -1, SEEK_END);
    }
    if (at < 0 || pread(file, &byte, 1, at) != 1) {
        failed(slot, "spoil errno");
        return;
    }
    byte ^= 1;
    if (pwrite(file, &byte, 1, at) != 1) {
        failed(slot, "spoil errno");
    }
    close(file);
}

static void remove_slot(int slot)
{
    char name[32];

    name_of(name, sizeof(name), slot, "");
    if (unlink(name)) {
        failed(slot, "unlink errno");
    }
    generations[slot] = 0;
}

static void run(bool fault)
{
    uint64_t chance = mix(seed);

    for (uint64_t generation = 1; !stopped; generation++) {
        int slot = (chance = mix(chance)) % SLOTS;
        int other = mix(chance) % SLOTS;

        if (generations[slot] && chance >> 61 == 0) {
            remove_slot(slot);
        } else if (write_slot(slot, generation, chance >> 8) && fault) {
            spoil(slot);
            fault = !verify(slot, true);
        }
        if (generations[other]) {
            verify(other, true);
        }
        if (time_to_say()) {
            say("VERIFIED files n=%llu", (unsigned long long)verified);
        }
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_term };

    if (argc < 2 || chdir(argv[1])) {
        say("ERR files no folder");
        return 1;
    }
    if (argc > 2) {
        sigaction(SIGTERM, &action, NULL);
        seed = strtoull(argv[2], NULL, 10);
        run(argc > 3 && !strcmp(argv[3], "fault"));
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (argc == 2 || generations[slot]) {
            verify(slot, argc > 2);
        }
    }
    say("VERIFIED files%s n=%llu", argc > 2 ? "" : "-remounted",
        (unsigned long long)verified);
    return errors ? 1 : 0;
}
