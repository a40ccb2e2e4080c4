/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Takes orders on the serial console: `<test> <argument> <wait kind>`, `list`. Answers are lines:
 *   AT <point>           the guest waits there until it receives a byte
 *   STORM <what>         the guest works until it receives a byte; P <n> shows that it moves on
 *   BAD <what>           a discrepancy     NOTE <figure>
 *   PASS <test> | FAIL <test> <count>      the end of a test
 *   CRASH <what>         an exception that nobody expected
 */
#include "lib.h"

extern const struct test tests_start[], tests_end[];
extern u32 mbi;
static char line[128];

static void read_line(void)
{
    u32 n = 0;
    for (;;) {
        while (!(inb(COM1 + 5) & 1)) {
            pause();
        }
        char c = inb(COM1);
        if (c == '\n') {
            line[n] = 0;
            return;
        }
        if (c >= ' ' && n < sizeof(line) - 1) {
            line[n++] = c;
        }
    }
}
static char *word(char **p)
{
    char *s = *p;
    while (*s == ' ') {
        s++;
    }
    char *e = s;
    while (*e && *e != ' ') {
        e++;
    }
    *p = *e ? e + 1 : e;
    *e = 0;
    return s;
}
static long number(const char *s)
{
    long v = 0;
    while (*s >= '0' && *s <= '9') {
        v = v * 10 + *s++ - '0';
    }
    return v;
}
static void order(char *text)
{
    char *p = text, *name = word(&p);
    if (streq(name, "list")) {
        for (const struct test *t = tests_start; t < tests_end; t++) {
            printf("TEST %s %s %u\n", t->name, t->kind, t->cpus);
        }
        printf("PASS list\n");
        return;
    }
    for (const struct test *t = tests_start; t < tests_end; t++) {
        if (streq(t->name, name)) {
            arg = number(word(&p));
            wait_kind = number(word(&p));
            irq_reset();
            if (t->cpus > 1) {
                smp_start();
            }
            t->run();
            irq_reset();
            u32 bad = failures();
            if (bad) {
                printf("FAIL %s %u\n", t->name, bad);
            } else {
                printf("PASS %s\n", t->name);
            }
            return;
        }
    }
    if (*name) {
        printf("FAIL %s no such test\n", name);
    }
}

void main(void);
void main(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 2, 0);              /* no FIFO: a byte sent is a byte to read */
    outb(COM1 + 3, 3);
    outb(COM1 + 4, 0xb);
    irq_reset();
    const u32 *info = (const u32 *)(u64)mbi;
    if (info && *info & 4) {        /* the orders may also come by the kernel's command line, separated by commas */
        char *p = (char *)(u64)info[4];
        for (char *s = p; *s; s++) {
            if (s[0] == 't' && s[1] == '=') {
                s += 2;
                while (*s) {
                    u32 n = 0;
                    while (*s && *s != ',') {
                        line[n++] = *s == ':' ? ' ' : *s;
                        s++;
                    }
                    line[n] = 0;
                    order(line);
                    s += *s == ',';
                }
                break;
            }
        }
    }
    printf("READY\n");
    for (;;) {
        read_line();
        order(line);
    }
}
