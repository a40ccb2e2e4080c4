/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Outside of long mode, across a switch: PAE paging and hardware task switches in 32-bit protected mode, and hidden parts of
 * segments in real mode. What runs there is in legacy.S.
 */
#include "lib.h"

extern void legacy_run(u32 entry);
extern u8 task_a[], task_b[], pae_run[], real_run[], real_mode[], real_mode_end[], real_int[], real_out[], trap32[];
extern u64 idt32[0x41];
extern u32 task_cr3, other_cr3, task_log_at, task_flags_late;

#define SELECTOR_A (SPARE_SELECTOR + 8 * 0)
#define SELECTOR_B (SPARE_SELECTOR + 8 * 1)
#define SELECTOR_LDT (SPARE_SELECTOR + 8 * 2)
#define PLAIN 0x464000ul                /* this word is at PLAIN for the first task and at MAPPED for the second */
#define MAPPED 0x864000ul
#define FIRST 0x11112222u
#define SECOND 0x33334444u
#define NT 0x4000u
#define TS 8u

struct tss32 {
    u32 link, stacks[6], cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt, iomap;
};
struct state { u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, eflags, tr, cr0, cr3, fs0, word, types, cr4; };

static u64 descriptor(u64 base, u32 limit, u32 type_and_flags)
{
    return (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)type_and_flags << 40 | (u64)(limit >> 16) << 48 | (base >> 24 & 0xff) << 56;
}
/* Into 32-bit mode and back; the task register is that of long mode again. */
static void legacy(const u8 *entry)
{
    for (u32 v = 0; v < 32; v++) {
        idt32[v] = ((u64)trap32 & 0xffff) | 0x18ul << 16 | 0x8eul << 40 | ((u64)trap32 >> 16 & 0xffff) << 48;
    }
    cli();
    legacy_run((u32)(u64)entry);
    tss_desc[0] &= ~(2ul << 40);
    asm volatile("ltr %w0; lldt %w1" :: "r"(TSS_SELECTOR), "r"(0) : "memory");
}
static void check_state(u32 number, const struct state *got, u32 tr, u32 cr3, u32 word, u32 types, u32 flags, u32 eax)
{
    static const char *const what[] = { "TR", "CR3", "word of the address space", "types of the TSS descriptors", "NT", "CR0.TS", "eax" };
    const u32 pairs[][2] = { { got->tr, tr }, { got->cr3, cr3 }, { got->word, word }, { got->types, types }, { got->eflags & NT, flags & NT },
                             { got->cr0 & TS, TS }, { got->eax, eax } };
    for (u32 i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        if (pairs[i][0] != pairs[i][1]) {
            fail("task switch %u: %s is %x, expected %x", number, what[i], pairs[i][0], pairs[i][1]);
        }
    }
}
/* Two address spaces of PAE paging, which differ in 2 MiB. */
static void make_spaces(void)
{
    static u64 pdpt_a[4] __attribute__((aligned(32))), pdpt_b[4] __attribute__((aligned(32))), pd_b[512] __attribute__((aligned(4096)));
    const u64 *pdpt = (const u64 *)(pml4[0] & ~0xffful);
    for (u32 i = 0; i < 4; i++) {
        pdpt_a[i] = pdpt_b[i] = (pdpt[i] & ~0xffful) | 1;
    }
    memcpy(pd_b, (void *)(pdpt[0] & ~0xffful), sizeof(pd_b));
    pd_b[2] = 0x800083;
    pdpt_b[0] = (u64)pd_b | 1;
    task_cr3 = (u32)(u64)pdpt_a;
    other_cr3 = (u32)(u64)pdpt_b;
    *(volatile u32 *)PLAIN = FIRST;
    *(volatile u32 *)MAPPED = SECOND;
}
/* A processor keeps the page-directory pointers that CR3 had when it was loaded. The switch after the last point is in long mode. */
TEST(pae, "pae", "at", 1)
{
    static u32 words[4];
    for (int i = 0; i < 2; i++) {
        make_spaces();
        memset(words, 0, sizeof(words));
        task_log_at = (u32)(u64)words;
        legacy(pae_run);
        check(words[0] == FIRST, "word of the first address space, after the switch", words[0], FIRST);
        check(words[1] == SECOND, "word of the second address space", words[1], SECOND);
        check(words[2] == SECOND, "word of the second address space, after the switch", words[2], SECOND);
        check(words[3] == FIRST, "word of the first address space again", words[3], FIRST);
        at("pae left");
    }
}

static struct tss32 a, b;
static struct state log[6];
static u32 ldt_word = 0x1d71;
/* Jump to a task and back, call and iret, task gate and iret; the log has what each of the six switches has brought. */
static void run_tasks(u32 flags_late)
{
    static u32 stack_b[256];
    static u64 ldt[2];
    make_spaces();
    memset(&a, 0, sizeof(a));
    memset(log, 0, sizeof(log));
    ldt[1] = 0x00cf93000000fffful | ((u64)&ldt_word & 0xffffff) << 16 | ((u64)&ldt_word >> 24 & 0xff) << 56;
    a.cr3 = task_cr3;
    a.iomap = sizeof(a) << 16;
    b = (struct tss32) { .cr3 = other_cr3, .eip = (u32)(u64)task_b, .eflags = 0x8d7, .eax = 0xb0000001, .ecx = 0xb0000002,
        .edx = 0xb0000003, .ebx = 0xb0000004, .esp = (u32)(u64)(stack_b + 256), .ebp = 0xb0000005, .esi = 0xb0000006, .edi = 0xb0000007,
        .es = 0x20, .cs = 0x18, .ss = 0x20, .ds = 0x20, .fs = 0x0c, .gs = 0x20, .ldt = SELECTOR_LDT, .iomap = sizeof(b) << 16 };
    spare_desc[0] = descriptor((u64)&a, sizeof(a) - 1, 0x89);
    spare_desc[1] = descriptor((u64)&b, sizeof(b) - 1, 0x89);
    spare_desc[2] = descriptor((u64)ldt, sizeof(ldt) - 1, 0x82);
    idt32[0x40] = (u64)SELECTOR_B << 16 | 0x85ul << 40;
    task_log_at = (u32)(u64)log;
    task_flags_late = flags_late;
    legacy(task_a);
    at("task-switch back in long mode");
}

/* The accelerator is switched in each task. */
TEST(task, "task-switch", "at", 1)
{
    u32 cr4 = read_cr4();
    run_tasks(0);
    /* Bytes of `types`: the first task's descriptor below, the second's above; 0x8b is busy. */
    u32 cr3_a = a.cr3, cr3_b = b.cr3;
    check_state(1, &log[0], SELECTOR_B, cr3_b, SECOND, 0x8b89, 0, 0xb0000001);
    check_state(2, &log[1], SELECTOR_A, cr3_a, FIRST, 0x898b, 0, 0xa0000001);
    check_state(3, &log[2], SELECTOR_B, cr3_b, SECOND, 0x8b8b, NT, 0xb1111111);
    check_state(4, &log[3], SELECTOR_A, cr3_a, FIRST, 0x898b, 0, 0xaa000001);
    check_state(5, &log[4], SELECTOR_B, cr3_b, SECOND, 0x8b8b, NT, 0xb1111111);
    check_state(6, &log[5], SELECTOR_A, cr3_a, FIRST, 0x898b, 0, 0xaaa00001);
    check((log[0].eflags & 0x8d5) == 0x8d5, "flags of the second task", log[0].eflags, 0x8d7);
    check(log[0].ebx == 0xb0000004 && log[0].edi == 0xb0000007 && log[0].ebp == 0xb0000005, "registers of the second task", log[0].ebx, 0xb0000004);
    check(log[1].ebx == 0xa0000002 && log[1].ebp == 0xa0000007 && log[1].edi == 0xa0000006, "registers of the first task", log[1].ebx, 0xa0000002);
    check((log[1].eflags & 0x401) == 0x401, "flags of the first task", log[1].eflags, 0x401);
    check(log[2].ebx == 0xb2222222, "ebx of the second task, called", log[2].ebx, 0xb2222222);
    for (u32 i = 0; i < 6; i += 2) {
        check(log[i].fs0 == ldt_word, "word through the second task's LDT", log[i].fs0, ldt_word);
    }
    check(b.link == SELECTOR_A, "back link", b.link, SELECTOR_A);
    check(log[5].cr4 == cr4 && read_cr4() == cr4, "CR4", log[5].cr4, cr4);
}

/* The flags that the instruction right before a task switch has set. */
TEST(task_flags, "task-flags", "at", 1)
{
    run_tasks(1);
    check((log[1].eflags & 0x401) == 0x401, "flags of a task set right before its switch", log[1].eflags, 0x401);
}

/* In real mode a segment keeps base and limit of protected mode; loads, interrupts and the way back are those of real mode. */
TEST(real, "real-mode", "at", 1)
{
    const u64 low = 0x9000, base = 0x500000;
    volatile u32 *vector;
    asm("" : "=r"(vector) : "0"(0x60ul * 4));   /* so near to 0 that a compiler takes it for a mistake */
    u32 kept = *vector;
    memcpy((void *)low, real_mode, real_mode_end - real_mode);
    spare_desc[3] = descriptor(0, 0xffff, 0x9b);
    spare_desc[4] = descriptor(0, 0xffff, 0x93);
    spare_desc[5] = descriptor(base, 0xfffff, 0x93) | 1ul << 55;
    *vector = low + (real_int - real_mode);
    *(volatile u32 *)base = 0x0b5e0001;
    *(volatile u32 *)(base + 0x100000) = 0x0b5e0002;
    *(volatile u32 *)0xa000ul = 0x0e5e5e5e;
    at_begin("real-mode");
    legacy(real_run);
    *vector = kept;
    const u32 *out = (const u32 *)(low + (real_out - real_mode));
    check(out[0] == 0xfeed0001, "ebx", out[0], 0xfeed0001);
    check(out[1] == 0x0b5e0001, "word through a base of protected mode", out[1], 0x0b5e0001);
    check(out[2] == 0x0b5e0002, "word 1 MiB behind it", out[2], 0x0b5e0002);
    check(out[3] == 0x0e5e5e5e, "word through a base of real mode", out[3], 0x0e5e5e5e);
    check((out[4] & 0xffff) == 0xa00, "es", out[4] & 0xffff, 0xa00);
    check(out[5] == 0x60606060, "mark of an interrupt by the table at 0", out[5], 0x60606060);
    check(!(out[6] & 0x80000001), "CR0.PG and CR0.PE", out[6], 0);
}
