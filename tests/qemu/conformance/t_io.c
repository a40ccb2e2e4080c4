/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Port and memory-mapped I/O while switches happen: every access is carried out exactly once (pitfalls 16, 25).
 */
#include "lib.h"

/* ---- pci-testdev: counts accesses; its eventfd variants use ioeventfds where the accelerator has them ---- */
static u32 testdev(u32 *mmio, u32 *pio)
{
    u32 dev = pci_find(0x00051b36);
    if (dev == ~0u) {
        note("no pci-testdev");
        return 0;
    }
    pci_write(dev, 4, pci_read(dev, 4) | 3);
    *mmio = pci_read(dev, 0x10) & ~15u;
    *pio = pci_read(dev, 0x14) & ~3u;
    return 1;
}
struct header { u8 test, width, pad0[2]; u32 offset; u8 data, pad1[3]; u32 count; u8 name[]; };
static u32 mmio_u32(volatile u8 *p) { return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24; }
/* arg: variant 0 plain, 1 wildcard eventfd, 2 data-matched eventfd. Both spaces. */
TEST(ioeventfd, "ioeventfd", "at", 1)
{
    u32 mmio, pio;
    if (!testdev(&mmio, &pio)) {
        return;
    }
    volatile u8 *m = (u8 *)(u64)mmio;
    for (int space = 0; space < 2; space++) {
        if (space) {
            outb(pio, arg);
        } else {
            m[0] = arg;
        }
        u32 offset, data;
        if (space) {
            offset = inb(pio + 4) | inb(pio + 5) << 8;
            data = inb(pio + 8);
        } else {
            offset = mmio_u32(m + 4);
            data = m[8];
        }
        u32 before = space ? inb(pio + 12) : m[12];
        at("ioeventfd");
        for (int i = 0; i < 10; i++) {
            if (space) {
                outb(pio + offset, data);
            } else {
                m[offset] = data;
            }
        }
        u32 after = space ? inb(pio + 12) : m[12];
        if (arg == 0) {
            check(after - before == 10, space ? "port writes counted" : "MMIO writes counted", after - before, 10);
        } else {
            /* The notifier has no reader: what counts is that the device model did not see the writes, in either mode. */
            check(after - before == 0, space ? "port writes that passed the eventfd" : "MMIO writes that passed the eventfd",
                  after - before, 0);
        }
        if (space) {
            outb(pio, 0xff);
        } else {
            m[0] = 0xff;
        }
    }
}
/* Plain writes counted exactly under random switches. */
TEST(io_count, "io-count", "storm", 1)
{
    u32 mmio, pio, n = 0, bad = 0;
    storm("io-count");
    if (!testdev(&mmio, &pio)) {
        while (!stop_requested()) {
        }
        return;
    }
    volatile u8 *m = (u8 *)(u64)mmio;
    while (!stop_requested()) {
        m[0] = 0;
        u32 offset = mmio_u32(m + 4), data = m[8];
        for (int i = 0; i < 150; i++) {
            m[offset] = data;
        }
        u32 got = m[12];
        if (got != 150 && bad++ < 3) {
            fail("MMIO writes counted: %u of 150", got);
        }
        m[0] = 0xff;
        outb(pio, 0);
        offset = inb(pio + 4) | inb(pio + 5) << 8, data = inb(pio + 8);
        for (int i = 0; i < 150; i++) {
            outb(pio + offset, data);
        }
        got = inb(pio + 12);
        if (got != 150 && bad++ < 3) {
            fail("port writes counted: %u of 150", got);
        }
        outb(pio, 0xff);
        n++;
        progress(n);
    }
    note("rounds %u", n);
}

/* ---- string I/O, interrupted in the middle ---- */
/* fw_cfg's data port yields the next byte at each read: a lost or repeated one shows. Its file directory is the text. */
static u8 cfg1[8192], cfg2[8192];
static void cfg_select(u16 key) { asm volatile("outw %0, %1" :: "a"(key), "Nd"((u16)0x510)); }
static void rep_insb(void *to, u16 port, u64 n)
{
    asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}
TEST(rep_ins, "rep-ins", "storm", 1)
{
    u32 n = 0, bad = 0;
    cfg_select(0x19);
    for (u32 i = 0; i < 1024; i++) {
        cfg1[i] = inb(0x511);
    }
    storm("rep-ins");
    while (!stop_requested()) {
        cfg_select(0x19);
        memset(cfg2, 0, 1024);
        rep_insb(cfg2, 0x511, 1024);
        int d = memcmp(cfg1, cfg2, 1024);
        if (d && bad++ < 3) {
            fail("rep insb: byte %d is %u, expected %u", d - 1, cfg2[d - 1], cfg1[d - 1]);
        }
        n++;
        progress(n);
    }
    note("rounds %u", n);
}
/* Text to the debug console, which the harness compares with what it should be: lines of 64 bytes, numbered. */
TEST(rep_outs, "rep-outs", "storm", 1)
{
    static u8 text[65 * 16];
    u32 n = 0;
    storm("rep-outs");
    while (!stop_requested()) {
        for (u32 l = 0; l < 16; l++) {
            u8 *p = text + 64 * l;
            u32 v = n * 16 + l;
            for (int i = 0; i < 8; i++) {
                p[i] = "0123456789abcdef"[v >> (28 - 4 * i) & 15];
            }
            for (int i = 8; i < 63; i++) {
                p[i] = 'a' + (v + i) % 26;
            }
            p[63] = '\n';
        }
        const void *from = text;
        u64 count = 64 * 16;
        asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"((u16)0xe9) : "memory");
        check(count == 0 && from == text + 64 * 16, "registers after rep outsb", (u64)from, (u64)(text + 64 * 16));
        n++;
        progress(n);
    }
    note("lines %u", n * 16);
}
/* rep movs to and from memory-mapped I/O: the VGA's window, whose writes KVM may coalesce. */
TEST(rep_movs, "rep-movs", "storm", 1)
{
    static u8 in[2048], out[2048];
    u32 n = 0, bad = 0;
    volatile u8 *vga = (u8 *)0xb8000ul;
    vga[0] = 0x5a;
    int present = vga[0] == 0x5a;
    storm("rep-movs");
    while (!stop_requested()) {
        if (!present) {
            continue;
        }
        for (u32 i = 0; i < sizeof(in); i++) {
            in[i] = i * 7 + n;
        }
        memcpy((void *)vga, in, sizeof(in));
        memcpy(out, (void *)vga, sizeof(out));
        int d = memcmp(in, out, sizeof(in));
        if (d && bad++ < 3) {
            fail("rep movsb over MMIO: byte %d is %u, expected %u", d - 1, out[d - 1], in[d - 1]);
        }
        /* A read-modify-write on MMIO, once. */
        vga[10] = 1;
        for (int i = 0; i < 20; i++) {
            asm volatile("addb $1, %0" : "+m"(vga[10]));
        }
        if (vga[10] != 21 && bad++ < 3) {
            fail("20 additions on MMIO: %u, expected 21", vga[10]);
        }
        n++;
        progress(n);
    }
    note(present ? "rounds %u" : "no VGA window %u", n);
}
/* Reads that must not be repeated: the UART's scratch register and PCI configuration space as a pair of accesses. */
TEST(io_pairs, "io-pairs", "storm", 1)
{
    u32 n = 0, bad = 0, want = pci_read(0, 0);
    storm("io-pairs");
    while (!stop_requested()) {
        for (int i = 0; i < 50; i++) {
            outb(COM1 + 7, i);
            u32 got = pci_read(0, 0);
            u8 scratch = inb(COM1 + 7);
            if ((got != want || scratch != (u8)i) && bad++ < 3) {
                fail("configuration space %x, expected %x; scratch %u, expected %u", got, want, scratch, i);
            }
        }
        n++;
        progress(n);
    }
    note("rounds %u", n);
}
/* pvpanic pauses the VM at this very instruction; the harness switches the paused VM and lets it go on. */
TEST(paused, "paused", "at", 1)
{
    for (int i = 0; i < 4; i++) {
        u64 a = 0x1111111111111111, b = 0x2222222222222222, c = 0x3333333333333333;
        at("paused next");
        asm volatile("outb %%al, %%dx" : "+b"(a), "+c"(b), "+S"(c) : "a"(1), "d"((u16)0x505) : "memory");
        check(a == 0x1111111111111111 && b == 0x2222222222222222 && c == 0x3333333333333333, "register", a, 0x1111111111111111);
    }
}
/* Resets the machine in the way of arg: 0 waits for the harness, 1 keyboard controller, 2 port 0xcf9, 3 triple fault. */
TEST(reset, "reset", "at", 1)
{
    at("reset");
    if (arg == 1) {
        outb(0x64, 0xfe);
    } else if (arg == 2) {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    } else if (arg == 3) {
        struct { u16 limit; u64 base; } __attribute__((packed)) none = { 0, 0 };
        asm volatile("lidt %0; int3" :: "m"(none));
    }
    for (;;) {
        pause();
    }
}
