/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What every test uses: console, interrupts, processors, clocks, ring 3, PCI. Nothing is tested here.
 */
#include "lib.h"

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define HPET 0xfed00000ul

long arg;
volatile u32 rx_ready, wait_kind, user_waits;
volatile u8 rx_byte;
struct exc exc;
volatile u64 fixup;
handler_t handlers[256];
static u32 fail_count;
extern u8 stacks[], isr_stubs[], ap_trampoline[], ap_trampoline_end[];
extern u64 user_return;
extern volatile u32 ap_next;

struct tss {
    u32 reserved;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, iomap;
    u8 bitmap[8192 + 1];
} __attribute__((packed));
static struct tss tss[CPUS] __attribute__((aligned(4096)));

/* ---- memory and strings ---- */
void *memcpy(void *d, const void *s, u64 n)
{
    void *r = d;
    asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) :: "memory");
    return r;
}
void *memset(void *d, int c, u64 n)
{
    void *r = d;
    asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return r;
}
int memcmp(const void *a, const void *b, u64 n)
{
    const u8 *x = a, *y = b;
    for (u64 i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return i + 1;
        }
    }
    return 0;
}
int streq(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++, b++;
    }
    return *a == *b;
}

/* ---- console ---- */
static void put(char c)
{
    while (!(inb(COM1 + 5) & 0x20)) {
        pause();
    }
    outb(COM1, c);
}
static void put_number(u64 v, u32 base)
{
    char b[24];
    int i = 0;
    do {
        b[i++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (i) {
        put(b[--i]);
    }
}
/* %s %d %u %x; l before d, u and x is accepted and everything is 64 bits wide on the stack. */
static void vprint(const char *f, __builtin_va_list ap)
{
    for (; *f; f++) {
        if (*f != '%') {
            put(*f);
            continue;
        }
        f++;
        int is_long = *f == 'l';
        f += is_long;
        if (*f == 's') {
            for (const char *s = __builtin_va_arg(ap, const char *); *s; s++) {
                put(*s);
            }
        } else if (*f == 'd') {
            i64 v = is_long ? __builtin_va_arg(ap, i64) : __builtin_va_arg(ap, int);
            if (v < 0) {
                put('-');
                v = -v;
            }
            put_number(v, 10);
        } else {
            u64 v = is_long ? __builtin_va_arg(ap, u64) : __builtin_va_arg(ap, u32);
            put_number(v, *f == 'x' ? 16 : 10);
        }
    }
}
/*
 * What one processor prints is not mixed with what the other does, or the host misses a line.  A handler may interrupt the one
 * that prints, so that nobody waits for ever.
 */
static void print(const char *before, const char *f, __builtin_va_list ap, const char *after)
{
    static volatile u32 printing;
    for (u32 i = 0; i < 1 << 22 && __sync_lock_test_and_set(&printing, 1); i++) {
        pause();
    }
    while (*before) {
        put(*before++);
    }
    vprint(f, ap);
    while (*after) {
        put(*after++);
    }
    __sync_lock_release(&printing);
}
#define PRINT(before, after) do { \
        __builtin_va_list ap; \
        __builtin_va_start(ap, fmt); \
        print(before, fmt, ap, after); \
        __builtin_va_end(ap); \
    } while (0)
void printf(const char *fmt, ...)
{
    PRINT("", "");
}
void fail(const char *fmt, ...)
{
    if (__sync_fetch_and_add(&fail_count, 1) < 12) {
        PRINT("BAD ", "\n");
    }
}
void note(const char *fmt, ...)
{
    PRINT("NOTE ", "\n");
}
void check(int ok, const char *what, u64 got, u64 expected)
{
    if (!ok) {
        fail("%s is %lx, expected %lx", what, got, expected);
    }
}
u32 failures(void)
{
    u32 n = fail_count;
    fail_count = 0;
    return n;
}

/* ---- points and storms ---- */
static void uart_handler(struct regs *r)
{
    (void)r;
    while (inb(COM1 + 5) & 1) {
        rx_byte = inb(COM1);
        rx_ready = 1;
        if (user_waits) {
            *(volatile u32 *)(USER_CODE + 0x800) = 1;
        }
    }
    apic_eoi();
}
void uart_irq(int on)
{
    outb(COM1 + 1, on ? 1 : 0);
}
void at_begin(const char *point)
{
    rx_ready = 0;
    uart_irq(wait_kind != 0);
    printf("AT %s", point);
    while (!(inb(COM1 + 5) & 0x20)) {
        pause();
    }
}
void at(const char *point)
{
    at_begin(point);
    at_nf();
    uart_irq(0);
}
void storm(const char *what)
{
    uart_irq(0);
    printf("STORM %s\n", what);
}
int stop_requested(void)
{
    if (inb(COM1 + 5) & 1) {
        rx_byte = inb(COM1);
        return 1;
    }
    return 0;
}
static u64 progress_at;
void progress(u64 n)
{
    u64 now = hpet_ns();
    if (now - progress_at > 200000000) {
        progress_at = now;
        printf("P %lu\n", n);
    }
}

/* ---- interrupts ---- */
void isr(struct regs *r);
void isr(struct regs *r)
{
    handler_t h = handlers[r->vec];
    if (h) {
        h(r);
        return;
    }
    if (r->vec == 0x80 && (r->cs & 3)) {
        leave_user(r->rax);
    }
    if (r->vec < 32 && cpu_id() == 0) {
        if ((r->cs & 3) || fixup) {
            exc.vec = r->vec;
            exc.err = r->err;
            exc.rip = r->rip;
            exc.cr2 = r->vec == 14 ? read_cr2() : 0;
            exc.count++;
            if (r->cs & 3) {
                leave_user(0x100 | r->vec);
            }
            r->rip = fixup;
            return;
        }
    }
    if (r->vec == 0xff) {       /* spurious, no EOI */
        return;
    }
    if (r->vec >= 32) {         /* left pending by an earlier test */
        apic_eoi();
        return;
    }
    printf("\nCRASH cpu %u vector %lu error %lx rip %lx cs %lx flags %lx rsp %lx cr2 %lx rax %lx rcx %lx rdx %lx\n", cpu_id(),
           r->vec, r->err, r->rip, r->cs, r->rflags, r->rsp, read_cr2(), r->rax, r->rcx, r->rdx);
    for (;;) {
        asm volatile("cli; hlt");
    }
}
static void idt_set(u32 vec, u32 dpl)
{
    u64 a = (u64)isr_stubs + 16 * vec;
    idt[2 * vec] = (a & 0xffff) | 0x08ul << 16 | (0x8e00ul | dpl << 13) << 32 | (a >> 16 & 0xffff) << 48;
    idt[2 * vec + 1] = a >> 32;
}

u32 apic_read(u32 reg) { return *(volatile u32 *)(LAPIC + reg); }
void apic_write(u32 reg, u32 v) { *(volatile u32 *)(LAPIC + reg) = v; }
void apic_eoi(void) { apic_write(0xb0, 0); }
void apic_icr(u32 apic_id, u32 low)
{
    while (apic_read(0x300) & 1 << 12) {
        pause();
    }
    apic_write(0x310, apic_id << 24);
    apic_write(0x300, low);
}
u32 ioapic_read(u32 reg) { *(volatile u32 *)IOAPIC = reg; return *(volatile u32 *)(IOAPIC + 0x10); }
void ioapic_write(u32 reg, u32 v) { *(volatile u32 *)IOAPIC = reg; *(volatile u32 *)(IOAPIC + 0x10) = v; }
void ioapic_route(u32 pin, u32 low, u32 dest)
{
    ioapic_write(0x10 + 2 * pin, 1 << 16);
    ioapic_write(0x11 + 2 * pin, dest << 24);
    ioapic_write(0x10 + 2 * pin, low);
}

void irq_reset(void)
{
    cli();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    outb(0x43, 0x30);           /* PIT channel 0: one-shot, not loaded */
    for (u32 pin = 0; pin < 24; pin++) {
        ioapic_write(0x10 + 2 * pin, 1 << 16);
    }
    apic_write(0x320, 1 << 16);
    apic_write(0x380, 0);
    apic_write(0x80, 0);
    apic_write(0xf0, 0x1ff);
    uart_irq(0);
    while (inb(COM1 + 5) & 1) {
        inb(COM1);
    }
    for (u32 v = 32; v < 256; v++) {
        if (v != VEC_UART && v != VEC_KICK) {
            handlers[v] = 0;
        }
    }
    for (u32 v = 0; v < 32; v++) {
        handlers[v] = 0;
    }
    for (int i = 0; i < 4; i++) {
        asm volatile("sti; nop; nop; cli" ::: "memory");
    }
    fixup = 0;
    user_waits = 0;
    ioapic_route(4, VEC_UART, apic_ids(0));
}

/* ---- processors ---- */
static volatile u32 ap_ids[CPUS], ap_running[CPUS], cpu_online[CPUS], ap_count;
static void (*volatile ap_fn[CPUS])(void);

u32 cpu_id(void)
{
    u64 sp;
    asm volatile("mov %%rsp, %0" : "=r"(sp));
    return (sp - 1 - (u64)stacks) / STACK_SIZE;
}
u32 apic_ids(u32 cpu) { return ap_ids[cpu]; }
int ap_up(u32 cpu) { return cpu_online[cpu]; }
static void kick_handler(struct regs *r) { (void)r; apic_eoi(); }

void main(void);
void cpu_main(u32 cpu);
void cpu_main(u32 cpu)
{
    struct tss *t = &tss[cpu];
    u64 base = (u64)t, limit = sizeof(*t) - 1;
    u32 r[4];
    memset(t, 0, sizeof(*t));
    t->rsp[0] = (u64)stacks + (cpu + 1) * STACK_SIZE - 0x2000;
    t->iomap = (u64)t->bitmap - base;
    memset(t->bitmap, 0xff, sizeof(t->bitmap));
    tss_desc[2 * cpu] = (limit & 0xffff) | (base & 0xffffff) << 16 | 0x89ul << 40 | (limit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56;
    tss_desc[2 * cpu + 1] = base >> 32;
    asm volatile("ltr %w0" :: "r"(TSS_SELECTOR + 16 * cpu));
    cpuid(1, 0, r);
    ap_ids[cpu] = r[1] >> 24;
    apic_write(0xf0, 0x1ff);
    if (cpu == 0) {
        for (u32 v = 0; v < 256; v++) {
            idt_set(v, v == 0x80 || v == 0x81 ? 3 : 0);
        }
        handlers[VEC_UART] = uart_handler;
        handlers[VEC_KICK] = kick_handler;
        main();
        return;
    }
    cpu_online[cpu] = 1;
    for (;;) {
        cli();
        if (ap_fn[cpu]) {
            sti();
            ap_fn[cpu]();
            ap_fn[cpu] = 0;
            ap_running[cpu] = 0;
            continue;
        }
        asm volatile("sti; hlt" ::: "memory");
    }
}

static void enter_apic_ids(u32 cpus)
{
    for (u32 i = 1; i < cpus; i++) {
        ap_ids[i] = i;          /* QEMU numbers one-thread packages in order */
    }
}
void ap_init_only(u32 cpu)
{
    enter_apic_ids(CPUS);
    cpu_online[cpu] = 0;
    ap_fn[cpu] = 0;
    apic_icr(ap_ids[cpu], 0x4500);
}
void ap_sipi(u32 cpu)
{
    memcpy((void *)0x8000, ap_trampoline, ap_trampoline_end - ap_trampoline);
    ap_next = cpu - 1;
    asm volatile("mfence" ::: "memory");
    apic_icr(ap_ids[cpu], 0x4608);
}
void ap_boot(u32 cpu)
{
    u64 start;
    ap_init_only(cpu);
    wait_ns(2000000);
    ap_sipi(cpu);
    start = hpet_ns();
    while (!cpu_online[cpu]) {
        if (hpet_ns() - start > 20000000000ul) {
            printf("CRASH cpu %u does not start\n", cpu);
            for (;;) {
                asm volatile("cli; hlt");
            }
        }
        pause();
    }
}
void smp_start(void)
{
    if (!cpu_online[1]) {
        ap_boot(1);
    }
}
void ap_run(u32 cpu, void (*fn)(void))
{
    ap_running[cpu] = 1;
    ap_fn[cpu] = fn;
    asm volatile("mfence" ::: "memory");
    apic_icr(ap_ids[cpu], VEC_KICK);
}
void ap_wait(u32 cpu)
{
    u64 start = hpet_ns();
    while (ap_running[cpu]) {
        if (hpet_ns() - start > 60000000000ul) {
            printf("CRASH cpu %u does not come back\n", cpu);
            for (;;) {
                asm volatile("cli; hlt");
            }
        }
        pause();
    }
}

/* ---- ring 3 ---- */
u64 user_program(const u8 *start, const u8 *end)
{
    for (u64 p = 0; p < 0x20; p++) {
        play_pt[(USER_CODE - PLAY) / 0x1000 + p] |= 4;
        invlpg(USER_CODE + p * 0x1000);
    }
    memset((void *)USER_CODE, 0, 0x1000);
    memcpy((void *)USER_CODE, start, end - start);
    return USER_CODE;
}
void io_allow(u16 port, u16 count, int allow)
{
    for (u32 p = port; p < (u32)port + count; p++) {
        if (allow) {
            tss[0].bitmap[p / 8] &= ~(1 << p % 8);
        } else {
            tss[0].bitmap[p / 8] |= 1 << p % 8;
        }
    }
}

/* ---- clocks ---- */
u64 hpet_ns(void)
{
    static u64 fs;
    if (!fs) {
        fs = *(volatile u64 *)HPET >> 32;
        *(volatile u64 *)(HPET + 0x10) |= 1;
    }
    return *(volatile u64 *)(HPET + 0xf0) * (fs / 1000) / 1000;
}
void wait_ns(u64 ns)
{
    u64 start = hpet_ns();
    while (hpet_ns() - start < ns) {
        pause();
    }
}

void pit_shot(void)
{
    outb(0x43, 0x30);
    outb(0x40, 100);
    outb(0x40, 0);
}

/* ---- PCI ---- */
u32 pci_read(u32 dev, u32 reg) { outl(0xcf8, 0x80000000 | dev | reg); return inl(0xcfc); }
void pci_write(u32 dev, u32 reg, u32 v) { outl(0xcf8, 0x80000000 | dev | reg); outl(0xcfc, v); }
u32 pci_find(u32 id)
{
    for (u32 slot = 0; slot < 32; slot++) {
        if (pci_read(slot << 11, 0) == id) {
            return slot << 11;
        }
    }
    return ~0u;
}
