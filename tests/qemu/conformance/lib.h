/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef LIB_H
#define LIB_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#define CPUS 8
#define STACK_SIZE 0x4000
#define PLAY 0x400000ul             /* 512 pages of 4 KiB with a page table of their own */
#define USER_CODE (PLAY + 0x10000)  /* user pages of the ring-3 tests */
#define USER_STACK (PLAY + 0x20000)
#define COM1 0x3f8
#define TSS_SELECTOR 0x50          /* + 16 * CPU */
#define SPARE_SELECTOR 0xd0        /* + 8 * n: spare_desc[n] */

struct regs {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    u64 vec, err, rip, cs, rflags, rsp, ss;
};
struct exc { volatile i64 vec; volatile u64 err, cr2, rip; volatile u32 count; };
typedef void (*handler_t)(struct regs *);

struct test {
    const char *name;
    void (*run)(void);
    /* "at": stops at points. "storm": runs until the harness sends a byte. */
    const char *kind;
    u32 cpus;
};
#define TEST(id, title, kind_, cpus_) \
    static void run_##id(void); \
    static const struct test test_##id __attribute__((used, section(".tests"), aligned(8))) = { title, run_##id, kind_, cpus_ }; \
    static void run_##id(void)

extern long arg;                        /* number given with the test's name */
extern volatile u32 rx_ready, wait_kind, user_waits;   /* user_waits: a ring-3 program waits for its flag */
extern volatile u8 rx_byte;
extern struct exc exc;                  /* the last exception that a fixup caught, on CPU 0 */
extern volatile u64 fixup;              /* where to go on after an exception, on CPU 0 */
extern handler_t handlers[256];
extern u64 idt[512], gdt[], play_pt[512], pml4[], tss_desc[], spare_desc[6];
extern volatile u64 syscall_sum;
extern u64 syscall_stack;
extern u8 user_io[], user_io_end[], user_io_denied[], user_spin[], user_spin_end[], user_port[], user_port_end[], user_sidt[], user_sidt_end[],
    user_smsw[], user_smsw_end[], user_null[], user_null_end[], user_syscalls[], user_syscalls_end[], user_ints[],
    user_ints_end[];

void printf(const char *fmt, ...);
void fail(const char *fmt, ...);        /* one discrepancy; the test goes on */
void note(const char *fmt, ...);        /* a figure for the report */
void check(int ok, const char *what, u64 got, u64 expected);
u32 failures(void);

void at(const char *point);             /* announce a point and wait there for the harness */
void at_begin(const char *point);       /* the same in two halves: state is set up between them, then */
void at_nf(void);                       /* changes no register and no flag */
int stop_requested(void);               /* for storms: has the harness sent its byte? */
void storm(const char *what);           /* announce a storm */
void progress(u64 n);                   /* report that a storm moves on, not more often than every 200 ms */

u64 enter_user(u64 rip, u64 rsp, u64 rflags);
void leave_user(u64 value) __attribute__((noreturn));
u64 user_program(const u8 *start, const u8 *end);   /* copy to user pages; answers its address */
void io_allow(u16 port, u16 count, int allow);
void syscall_entry(void);

u32 cpu_id(void);
void smp_start(void);
u32 apic_ids(u32 cpu);
void ap_run(u32 cpu, void (*fn)(void));             /* start fn on an application processor */
void ap_wait(u32 cpu);                              /* wait until it has returned */
void ap_boot(u32 cpu);                              /* INIT, SIPI, wait until it is up */
void ap_init_only(u32 cpu);
void ap_sipi(u32 cpu);
int ap_up(u32 cpu);

u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
void apic_icr(u32 apic_id, u32 low);
void apic_eoi(void);
void ioapic_write(u32 reg, u32 value);
u32 ioapic_read(u32 reg);
void ioapic_route(u32 pin, u32 low, u32 dest);
void irq_reset(void);                               /* every interrupt source back to quiet */
void uart_irq(int on);

u64 hpet_ns(void);
void wait_ns(u64 ns);
void pit_shot(void);                                /* one interrupt of the 8254, after 84 us */
u32 pci_find(u32 id);                               /* bus/device/function address, or ~0 */
u32 pci_read(u32 dev, u32 reg);
void pci_write(u32 dev, u32 reg, u32 value);

void *memcpy(void *d, const void *s, u64 n);
void *memset(void *d, int c, u64 n);
int memcmp(const void *a, const void *b, u64 n);
int streq(const char *a, const char *b);

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" :: "a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void outl(u16 port, u32 v) { asm volatile("outl %0, %1" :: "a"(v), "Nd"(port)); }
static inline u32 inl(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void sti(void) { asm volatile("sti" ::: "memory"); }
static inline void cli(void) { asm volatile("cli" ::: "memory"); }
static inline void pause(void) { asm volatile("pause" ::: "memory"); }
static inline u64 rdmsr(u32 msr)
{
    u32 a, d;
    asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(msr) : "memory");
    return a | (u64)d << 32;
}
static inline void wrmsr(u32 msr, u64 v) { asm volatile("wrmsr" :: "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 rdtsc(void)
{
    u32 a, d;
    asm volatile("lfence; rdtsc; lfence" : "=a"(a), "=d"(d) :: "memory");
    return a | (u64)d << 32;
}
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
#define READ_REG(name, reg) static inline u64 name(void) { u64 v; asm volatile("mov %%" reg ", %0" : "=r"(v) :: "memory"); return v; }
#define WRITE_REG(name, reg) static inline void name(u64 v) { asm volatile("mov %0, %%" reg :: "r"(v) : "memory"); }
READ_REG(read_cr0, "cr0") READ_REG(read_cr2, "cr2") READ_REG(read_cr3, "cr3") READ_REG(read_cr4, "cr4") READ_REG(read_cr8, "cr8")
WRITE_REG(write_cr0, "cr0") WRITE_REG(write_cr2, "cr2") WRITE_REG(write_cr3, "cr3") WRITE_REG(write_cr4, "cr4") WRITE_REG(write_cr8, "cr8")
READ_REG(read_dr0, "dr0") READ_REG(read_dr1, "dr1") READ_REG(read_dr2, "dr2") READ_REG(read_dr3, "dr3") READ_REG(read_dr6, "dr6") READ_REG(read_dr7, "dr7")
WRITE_REG(write_dr0, "dr0") WRITE_REG(write_dr1, "dr1") WRITE_REG(write_dr2, "dr2") WRITE_REG(write_dr3, "dr3") WRITE_REG(write_dr6, "dr6") WRITE_REG(write_dr7, "dr7")
static inline void invlpg(u64 a) { asm volatile("invlpg (%0)" :: "r"(a) : "memory"); }

/* Runs one instruction which may fault; exc.vec says what happened, -1 for nothing. */
#define TRY(insn, outputs, inputs, clobbers...) do { \
        exc.vec = -1; \
        asm volatile("movq $99f, fixup(%%rip)\n\t" insn "\n99:\tmovq $0, fixup(%%rip)" : outputs : inputs : "memory", ##clobbers); \
    } while (0)
#define ARGS(...) __VA_ARGS__
#define VEC_KICK 0xf0       /* wakes an idle application processor */
#define VEC_UART 0x24
#endif
