# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes one fix at a time out of the series, rebuilds, and shows that the test named for it fails on a lab host.

  make mutations LAB=1 [ARGS="--only 3 7"]

A mutation replaces text, or comments out a line, in one or more files of a QEMU tree of its own (in the cache); text that is not
there any more is an error, so that the table cannot rot. The result is a table: number, pitfall, "caught" or "SURVIVED",
mutation, test. Exit status 0 if all that this host can run were caught. Pitfalls that no guest in a lab can observe are in PITFALLS.md with the
reason, and are not listed here.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
from qemu_build import COMPLETE, compile_tree, environment_for, patched_tree, recipe
from qemu_series import PATCHES, cache_dir, read_series

STATE = "target/i386/hybrid/hybrid-state.c"
BARE = "test_baremetal.py::test_point"
FAILS = "test_transaction.py"


@dataclass(frozen=True)
class Mutation:
    pitfall: int
    what: str
    edits: tuple[tuple[str, str, str], ...]  # file, text, replacement
    tests: tuple[str, ...]


def drop(path: str, *lines: str) -> tuple[tuple[str, str, str], ...]:
    """Edits that comment lines out."""
    return tuple((path, line, f"/* mutation: {line} */" if "/*" not in line else "") for line in lines)


MUTATIONS = (
    Mutation(1, "x87 registers are not rotated on the way to tcg", drop(STATE, "rotate_fpregs(env, env->fpstt);"),
             (f"{BARE}[x87-on-kvm-tcg]",)),
    Mutation(1, "x87 registers are not rotated on the way to kvm", drop(STATE, "rotate_fpregs(env, -env->fpstt);"),
             (f"{BARE}[x87-on-tcg-kvm]",)),
    Mutation(2, "a busy TSS permits no I/O",
             (("target/i386/tcg/system/seg_helper.c", "(env->tr.flags & ~DESC_TSS_BUSY_MASK)", "env->tr.flags"),), (f"{BARE}[ring3-spin-on-kvm-tcg]",)),
    Mutation(3, "the CODE client clears KVM's dirty log",
             (("system/physmem.c", "if (client != DIRTY_MEMORY_CODE) {", "if (true) {"),),
             (f"{BARE}[smc-on-kvm-tcg]",)),
    # Without the line alone they would only be late: KVM gets them back at the next switch.
    Mutation(7, "interrupts and NMIs that KVM had taken are dropped",
             ((STATE, "cpu_interrupt(cs, CPU_INTERRUPT_TAKEN);", "env->interrupt_injected = -1;\n        env->nmi_injected = false;"),),
             ("test_baremetal.py::test_storm[irq-storm-off-kvm-tcg]", "test_baremetal.py::test_storm[irq-storm-on-kvm-tcg]")),
    Mutation(7, "a pending NMI is dropped", drop(STATE, "cpu_interrupt(cs, CPU_INTERRUPT_NMI);"),
             (f"{BARE}[nmi-on-tcg-kvm]",)),
    Mutation(9, "XSTATE_BV is not set", drop(STATE, "env->xstate_bv = env->xcr0 | XSTATE_FP_MASK | XSTATE_SSE_MASK;"),
             ("test_lifecycle.py::test_start_in_tcg[on]",)),
    Mutation(10, "CR4 does not reach hflags", drop(STATE, "cpu_x86_update_cr4(env, env->cr[4]);"),
             (f"{BARE}[smap-on-kvm-tcg]", f"{BARE}[umip-on-kvm-tcg]")),
    Mutation(11, "the x87 control word does not reach softfloat", drop(STATE, "update_fp_status(env);"),
             (f"{BARE}[x87-round-on-kvm-tcg]",)),
    Mutation(11, "MXCSR does not reach softfloat", drop(STATE, "update_mxcsr_status(env);"), (f"{BARE}[sse-round-on-kvm-tcg]",)),
    Mutation(11, "softfloat's flags do not reach MXCSR", drop(STATE, "update_mxcsr_from_sse_status(env);"),
             (f"{BARE}[sse-flags-on-tcg-kvm]",)),
    Mutation(13, "TCG's TSC does not take KVM's offset",
             (("target/i386/hybrid/hybrid-state.c", "ret = tsc_offset_ioctl(cs, KVM_GET_DEVICE_ATTR, &env->tsc_offset);", "ret = 0;"),),
             (f"{BARE}[tsc-on-kvm-tcg]",)),
    Mutation(15, "translations are believed", drop("accel/hybrid/hybrid-switch.c", "tb_doubt_all();"),
             (f"{BARE}[smc-on-tcg-kvm]", f"{BARE}[smc-dma-on-tcg-kvm]")),
    Mutation(15, "TLBs are kept", drop(STATE, "tlb_flush(cs);"), (f"{BARE}[tlb-on-kvm-tcg]", f"{BARE}[pt-bits-on-kvm-tcg]")),
    Mutation(16, "ioeventfds are not signalled in tcg", (("system/memory.c", "if (!kvm_in_use() &&", "if (!kvm_enabled() &&"),),
             (f"{BARE}[ioeventfd-on-kvm-tcg]",)),
    Mutation(17, "breakpoints are not rebuilt", drop(STATE, "rebuild_breakpoints(cs);"), (f"{BARE}[dr-fire-on-kvm-tcg]",)),
    Mutation(18, "out-of-range CPUID leaves differ",
             (("target/i386/cpu.c", "if (hybrid_enabled() && !x86_hybrid_cpuid_leaf(env, &index)) {",
               "if (false && !x86_hybrid_cpuid_leaf(env, &index)) {"),),
             (f"{BARE}[cpuid-on-kvm-tcg]",)),
    Mutation(20, "the stream has TCG's conventions", (("accel/hybrid/hybrid-migration.c", "if (!hybrid_in_tcg()) {", "if (true) {"),),
             ("test_migration.py::test_snapshot[the same-tcg]",)),
    Mutation(23, "a halted vCPU runs on in kvm", ((STATE, "if (hybrid_kernel_apic && cs->halted) {", "if (false) {"),),
             (f"{BARE}[sipi-on-tcg-kvm]",)),
    Mutation(23, "routes are not put into the kernel again",
             (("hw/i386/kvm/hybrid-apic.c", "ioapic_sync_kvm_routes();", "/* mutation */"),), (f"{BARE}[ioapic-route-split-tcg-kvm]",)),
    Mutation(26, "the processor's TLB is not flushed", drop(STATE, "sregs.cr4 ^= CR4_PGE_MASK;"),
             ("test_lifecycle.py::test_stale_translations_of_the_processor_are_dropped",)),
    Mutation(27, "a pending INIT is dropped",
             (("target/i386/kvm/kvm.c",
               "cpu_interrupt(CPU(cpu), CPU_INTERRUPT_INIT);\n        } else if (kvm_irqchip_in_kernel()) {",
               "cpu_interrupt(CPU(cpu), CPU_INTERRUPT_INIT);\n        } else {"),),
             (f"{BARE}[sipi-off-kvm-tcg-kvm]",)),
    Mutation(5, "a kick before the thread exists",
             (("accel/hybrid/hybrid-accel-ops.c", "if (!cpu->created) {", "if (false) {"),), (f"{BARE}[gpr-on-kvm-tcg]",)),
    Mutation(8, "the interrupt shadow is not taken from KVM",
             (("target/i386/kvm/kvm.c", "if (events.interrupt.shadow) {", "if (false) {"),),
             ("test_baremetal.py::test_storm[shadow-on-kvm-tcg]", "test_baremetal.py::test_storm[sti-hlt-on-kvm-tcg]")),
    Mutation(8, "the interrupt shadow is not put into KVM",
             (("target/i386/kvm/kvm.c", "if (env->hflags & HF_INHIBIT_IRQ_MASK) {\n            events.interrupt.shadow",
               "if (false) {\n            events.interrupt.shadow"),),
             ("test_baremetal.py::test_storm[shadow-on-kvm-tcg]", "test_baremetal.py::test_storm[sti-hlt-on-kvm-tcg]")),
    Mutation(14, "a reset in tcg puts registers into KVM",
             (("accel/hybrid/hybrid-accel-ops.c", "if (!hybrid_tcg_active) {\n        kvm_cpu_synchronize_post_reset(cpu);",
               "if (true) {\n        kvm_cpu_synchronize_post_reset(cpu);"),),
             ("test_lifecycle.py::test_reset[qmp-tcg]", "test_lifecycle.py::test_reset[qmp-tcg-kvm]")),
    Mutation(21, "MTRR masks keep bits beyond the address width", drop(STATE, "trim_mtrr_masks(cpu);"), (f"{BARE}[msr-on-kvm-tcg]",)),
    Mutation(22, "SMM is not refused", (("hw/i386/x86.c", "if (hybrid_enabled()) {\n        /* A switch inside", "if (false) {\n        /* A switch inside"),),
             ("test_blockers.py::test_refused_at_start[smm]",)),
    Mutation(30, "8259 and IOAPIC are not saved",
             (("accel/hybrid/hybrid-switch.c", "!hybrid_arch_save_irqchip(errp)", "false"),),
             (f"{BARE}[ioapic-route-on-kvm-tcg]", f"{BARE}[pic-on-kvm-tcg]")),
    Mutation(30, "8259 and IOAPIC are not loaded",
             (("accel/hybrid/hybrid-switch.c", "!hybrid_arch_load_irqchip(errp)", "false"),),
             (f"{BARE}[ioapic-route-on-tcg-kvm]", f"{BARE}[pic-on-tcg-kvm]")),
    Mutation(11, "softfloat's flags stay when MXCSR has them",
             ((STATE, "again. */\n    set_float_exception_flags(0, &env->sse_status);", "again. */"),),
             ("test_lifecycle.py::test_registers_are_only_shown",)),
    Mutation(21, "an MSR value that KVM refuses ends QEMU",
             (("target/i386/kvm/kvm.c", "if (hybrid_enabled()) {\n            /*\n             * TCG accepts",
               "if (false) {\n            /*\n             * TCG accepts"),),
             (f"{FAILS}::test_state_that_kvm_refuses",)),
    Mutation(31, "after a failed switch to kvm the state is not converted back",
             (("accel/hybrid/hybrid-switch.c", "stay:\n    CPU_FOREACH(cpu) {\n        hybrid_arch_convert_to_tcg(cpu);\n    }", "stay:"),),
             (f"{FAILS}::test_guest_goes_on[on-kvm-convert]",)),
    Mutation(31, "after a failed switch to tcg the copy is put into KVM", ((STATE, "cs->vcpu_dirty = false;\n\n    /* KVM", "/* KVM"),),
             (f"{FAILS}::test_guest_goes_on[on-tcg-translations]",)),
    Mutation(31, "after a failed switch to tcg an event is in both accelerators",
             ((STATE, "    cpu_reset_interrupt(cs, CPU_INTERRUPT_TAKEN);\n    if (env->nmi_pending) {", "    if (env->nmi_pending) {"),),
             (f"{FAILS}::test_storm_with_failures[off-irq-storm-0]", f"{FAILS}::test_storm_with_failures[on-nmi-storm-0]")),
    Mutation(23, "a TSC deadline is not put into the kernel",
             (("hw/i386/kvm/hybrid-apic.c", "ret < 0 ? ret : kvm_put_tscdeadline_msr(cpu)", "ret"),), (f"{BARE}[deadline-on-tcg-kvm]",)),
    Mutation(23, "a TSC deadline stands still while the VM is paused",
             (("hw/i386/kvm/hybrid-apic.c", "if (!running || hybrid_in_kvm()) {", "if (true) {"),),
             ("test_lifecycle.py::test_deadline_goes_on_while_paused[tcg]",)),
    Mutation(20, "KVM's log of dirty pages reaches TCG", (("include/exec/ram_addr.h", "tcg_enabled() && !hybrid_enabled()", "tcg_enabled()"),),
             ("test_migration.py::test_code_that_changes_while_memory_is_copied",)),
    Mutation(15, "a translation that is true jumps to one that is not",
             (("accel/tcg/tb-maint.c", "n == 0 && other->checked", "other == tb && other->checked"),),
             (f"{BARE}[smc-chain-on-tcg-kvm]",)),
    Mutation(15, "the second page of a translation is not compared",
             (("accel/tcg/tb-maint.c", "(size0 == tb->size ||", "(size0 <= tb->size ||"),), (f"{BARE}[smc-on-tcg-kvm]",)),
    Mutation(32, "KVM is given PDPTEs that TCG has not kept", drop(STATE, "env->pdptrs_valid = false;"),
             (f"{BARE}[pae-on-tcg-kvm]",)),
)  # fmt: skip


def apply(source: pathlib.Path, edits: tuple[tuple[str, str, str], ...]) -> dict[pathlib.Path, str]:
    """Make the edits; answers the original texts."""
    originals: dict[pathlib.Path, str] = {}
    for name, old, new in edits:
        path = source / name
        text = path.read_text()
        if old not in text:
            restore(originals)
            raise SystemExit(f"{name} has no text {old!r}: the table of mutations is out of date")
        originals.setdefault(path, text)
        path.write_text(text.replace(old, new, 1))
    return originals


def restore(originals: dict[pathlib.Path, str]) -> None:
    for path, text in originals.items():
        path.write_text(text)


def build(folder: pathlib.Path, work: pathlib.Path) -> tuple[bool, str]:
    command = ["ninja", "-C", str(folder), "qemu-system-x86_64"]
    done = subprocess.run(command, env=environment_for(work), capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout[-1500:]


def run_test(binary: pathlib.Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Answers whether any of the tests failed, and what was said."""
    environment = dict(os.environ, HYBRID_QEMU=str(binary))
    targets = [str(HERE / test) for test in tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", *targets],
        cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode} for {tests}: {done.stdout[-2000:]}{done.stderr[-500:]}")
    if done.returncode == 0 and "passed" not in last:
        last += " (skipped on this host)"
    if " error" in last:
        raise SystemExit(f"the test itself did not run: {done.stdout[-3000:]}")
    return done.returncode == 1, last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many compilers run at once")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutations, see --list")
    parser.add_argument("--list", action="store_true", help="show the table and do nothing")
    chosen = parser.parse_args()
    wanted = [(n, m) for n, m in enumerate(MUTATIONS) if not chosen.only or n in chosen.only]
    if chosen.list:
        for number, mutation in wanted:
            print(f"{number:3} pitfall {mutation.pitfall:2} {mutation.what}: {' '.join(mutation.tests)}")
        return 0
    work = cache_dir() / "mutations"
    patched_tree(work, list(read_series(str(PATCHES)).paths))
    # Whoever ends this before the tree is as it was leaves none that the next run would take.
    made_of = (work / COMPLETE).read_text()
    (work / COMPLETE).unlink()
    folder = compile_tree("mutations", work, chosen.jobs, recipe()["targets"])
    survived = 0
    for number, mutation in wanted:
        started = time.monotonic()
        originals = apply(work / "src", mutation.edits)
        try:
            built, said = build(folder, work)
            if built:
                caught, said = run_test(folder / "qemu-system-x86_64", mutation.tests)
                result = "caught" if caught else "not run here" if "skipped on this host" in said else "SURVIVED"
            else:
                result = "DOES NOT BUILD"
        finally:
            restore(originals)
        survived += result not in ("caught", "not run here")
        took = time.monotonic() - started
        print(f"{number:3} pitfall {mutation.pitfall:2} {result:14} {took:4.0f} s  {mutation.what}: {' '.join(mutation.tests)}: {said}", flush=True)
    (work / COMPLETE).write_text(made_of)
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
