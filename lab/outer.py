# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the outer QEMU that is the lab host's hardware. Pure."""

from __future__ import annotations

from lab.config import MEMORY_MIB, VCPUS, Lab

# Emulation of AMD's virtualization extension with nested paging makes a real kvm_amd work inside.
ACCELERATORS = {
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max,+svm,+npt"],
    "kvm": ["-accel", "kvm", "-cpu", "host"],
}
# Emulated CPUs may stand still for long: no false alarms about it. The clock is the TSC, the cheapest to emulate.
KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 loglevel=4 net.ifnames=0 mitigations=off nowatchdog "
    "rcupdate.rcu_cpu_stall_timeout=300 workqueue.watchdog_thresh=0 clocksource=tsc tsc=reliable random.trust_cpu=on"
)


def process_name(lab: Lab) -> str:
    """Return the name that marks this lab host's QEMU process, unique per cache folder and number."""
    return f"hybrid-{lab.name},debug-threads=on"


def command_line(
    lab: Lab, emulator: str, accelerator: str, disk: str, kernel: str, initrd: str, tsc_khz: int | None = None
) -> list[str]:
    """Return the argument list of QEMU for a lab host.

    emulator is the path of QEMU, accelerator a key of ACCELERATORS. The disk is never written to: changes live as long as the process.
    tsc_khz is what the kernel is told about the TSC that it would measure badly under emulation.
    """
    tsc = f" tsc_early_khz={tsc_khz}" if tsc_khz else ""
    return [
        emulator,
        *("-name", process_name(lab)),
        *ACCELERATORS[accelerator],
        *("-machine", "pc,usb=off,vmport=off,hpet=off"),
        *("-smp", str(VCPUS), "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *("-kernel", kernel, "-initrd", initrd),
        *("-append", f"{KERNEL_ARGUMENTS}{tsc} systemd.hostname={lab.name}"),
        *("-drive", f"file={disk},format=raw,if=none,id=root,snapshot=on,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{lab.ssh_port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={lab.console}", "-serial", "chardev:console"),
        *("-monitor", f"unix:{lab.folder}/monitor.sock,server=on,wait=off"),
        *("-pidfile", str(lab.pid_file)),
    ]
