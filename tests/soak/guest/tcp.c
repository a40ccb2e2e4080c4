/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * soak-tcp: records over TCP, there and back, both ways at once.
 *
 *   soak-tcp client ADDRESS PORT SEED   in the guest, until SIGTERM
 *   soak-tcp client ADDRESS PORT SEED fault    one bit of a payload is wrong
 *   soak-tcp serve                      the other end, on standard input
 *
 * The client sends records with a checksum; the server verifies each and
 * answers with one that has every word changed, which the client verifies.
 * The server says what is wrong in its answer: only the client has a console.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "soak.h"

enum { MAX_WORDS = 8192, WINDOW = 4, MAGIC = 0x54637021 };
enum verdict { RIGHT, BAD_HEADER, BAD_NUMBER, BAD_SUM };

struct header {
    uint32_t magic;
    uint32_t words;                 /* that follow */
    uint64_t number;
    uint64_t sum;                   /* of these */
    uint64_t verdict;               /* of an answer: on what it answers */
};

static const char *const verdicts[] = { "right", "header", "number", "sum" };
static volatile sig_atomic_t stopped;
static sem_t window;
static uint64_t seed, sent, verified;
static bool fault;

static void on_term(int number)
{
    (void)number;
    stopped = 1;
}

static bool get(int from, void *data, size_t size)
{
    for (size_t at = 0; at < size; ) {
        ssize_t done = read(from, (uint8_t *)data + at, size - at);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return false;
        }
        at += done;
    }
    return true;
}

static bool put(int to, const void *data, size_t size)
{
    for (size_t at = 0; at < size; ) {
        ssize_t done = send(to, (const uint8_t *)data + at, size - at,
                            MSG_NOSIGNAL);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return false;
        }
        at += done;
    }
    return true;
}

static uint64_t record_seed(uint64_t number)
{
    return mix(seed ^ mix(number));
}

static uint32_t record_words(uint64_t number)
{
    return 1 + mix(record_seed(number)) % MAX_WORDS;
}

static enum verdict judge(const struct header *header, const uint64_t *words,
                          uint64_t number)
{
    if (header->magic != MAGIC || !header->words ||
        header->words > MAX_WORDS) {
        return BAD_HEADER;
    }
    if (header->number != number) {
        return BAD_NUMBER;
    }
    return checksum(words, header->words) == header->sum ? RIGHT : BAD_SUM;
}

/*
 * To close a connection with records that nobody has read resets it, and the
 * client loses answers that it has not read: read on until the client closes.
 */
static int give_up(void)
{
    char unread;

    shutdown(STDIN_FILENO, SHUT_WR);
    while (get(STDIN_FILENO, &unread, sizeof(unread))) {
        /* nothing to do with it */
    }
    return 1;
}

/* Until the client has no more to send, or says what cannot be understood. */
static int serve(void)
{
    static uint64_t words[MAX_WORDS];
    struct header header;

    for (uint64_t number = 0; get(STDIN_FILENO, &header, sizeof(header));
         number++) {
        bool readable = header.magic == MAGIC && header.words <= MAX_WORDS;

        if (readable && !get(STDIN_FILENO, words, header.words * 8ull)) {
            return 1;
        }
        header.verdict = judge(&header, words, number);
        if (header.verdict != RIGHT) {
            header.words = 0;
        }
        for (uint32_t i = 0; i < header.words; i++) {
            words[i] = mix(words[i]);
        }
        header.sum = checksum(words, header.words);
        header.magic = MAGIC;
        if (!put(STDIN_FILENO, &header, sizeof(header)) ||
            !put(STDIN_FILENO, words, header.words * 8ull)) {
            return 1;
        }
        if (header.verdict != RIGHT) {
            return give_up();
        }
    }
    return 0;
}

static void *send_records(void *unused)
{
    static struct {
        struct header header;
        uint64_t words[MAX_WORDS];
    } record;

    (void)unused;
    while (!stopped) {
        uint32_t words = record_words(sent);

        /* Not more than the window ahead: an answer wakes this thread. */
        while (sem_wait(&window)) {
        }
        fill(record.words, words, record_seed(sent));
        record.header = (struct header) { MAGIC, words, sent,
                                          checksum(record.words, words), 0 };
        if (fault && sent == 3) {
            record.words[words / 2] ^= 1;
        }
        __atomic_store_n(&sent, sent + 1, __ATOMIC_RELEASE);
        if (!put(STDIN_FILENO, &record, sizeof(record.header) + words * 8)) {
            return NULL;
        }
    }
    /* The server answers what it has, and then ends the connection too. */
    shutdown(STDIN_FILENO, SHUT_WR);
    return NULL;
}

static int wrong(const char *what, uint64_t got, uint64_t want)
{
    say("ERR tcp record=%llu %s got=%llx want=%llx",
        (unsigned long long)verified, what, (unsigned long long)got,
        (unsigned long long)want);
    return 1;
}

/* The end of the stream is right only when we ended it, with no answer due. */
static int receive_records(void)
{
    static uint64_t words[MAX_WORDS];
    struct header header;
    enum verdict verdict;
    uint64_t want;

    for (;; verified++) {
        if (!get(STDIN_FILENO, &header, sizeof(header))) {
            return stopped && verified == __atomic_load_n(&sent,
                                                          __ATOMIC_ACQUIRE)
                   ? 0 : wrong("connection ended, errno", errno, 0);
        }
        if (header.verdict != RIGHT && header.verdict <= BAD_SUM) {
            say("ERR tcp record=%llu the server finds a wrong %s",
                (unsigned long long)verified, verdicts[header.verdict]);
            return 1;
        }
        if (header.magic != MAGIC || header.words != record_words(verified)) {
            return wrong("answer's header", header.words,
                         record_words(verified));
        }
        if (!get(STDIN_FILENO, words, header.words * 8ull)) {
            return wrong("answer was cut, errno", errno, 0);
        }
        verdict = judge(&header, words, verified);
        if (verdict != RIGHT) {
            return wrong("answer", verdict, RIGHT);
        }
        for (uint32_t i = 0; i < header.words; i++) {
            want = mix(mix(record_seed(verified) + i));
            if (words[i] != want) {
                return wrong("answer's word", words[i], want);
            }
        }
        sem_post(&window);
        if (time_to_say()) {
            say("VERIFIED tcp n=%llu", (unsigned long long)verified + 1);
        }
    }
}

static int client(const char *address, const char *port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(atoi(port)),
                              .sin_addr.s_addr = inet_addr(address) };
    struct sigaction action = { .sa_handler = on_term };
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t sender;
    int status;

    if (connection < 0 || connect(connection, (struct sockaddr *)&to,
                                  sizeof(to))) {
        say("ERR tcp connect to %s errno=%d", address, errno);
        return 1;
    }
    dup2(connection, STDIN_FILENO);
    sigaction(SIGTERM, &action, NULL);
    sem_init(&window, 0, WINDOW);
    if (pthread_create(&sender, NULL, send_records, NULL)) {
        say("ERR tcp no thread");
        return 1;
    }
    status = receive_records();
    say("VERIFIED tcp n=%llu", (unsigned long long)verified);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "serve")) {
        return serve();
    }
    if (argc < 5 || strcmp(argv[1], "client")) {
        say("ERR tcp soak-tcp serve | client ADDRESS PORT SEED [fault]");
        return 1;
    }
    seed = strtoull(argv[4], NULL, 10);
    fault = argc > 5 && !strcmp(argv[5], "fault");
    return client(argv[2], argv[3]);
}
