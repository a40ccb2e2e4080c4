# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make a freshly bootstrapped Debian a lab host. Pure: names and contents, nothing is written here.

A lab host has what a plain Debian server has. What the toolkit's roles install does not belong here.
"""

from __future__ import annotations

from lab.config import MAX_NUMBER

PACKAGES = (
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "less",
    "linux-image-cloud-amd64",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
# Work that a machine which lives for minutes need not do.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-update-utmp.service",
    "systemd-networkd-wait-online.service",
)
# The machine's ssh server waits for these two modules only: everything else is loaded by udev from the root file system.
INITRD_MODULES = "virtio_pci\nvirtio_blk\next4\n"

FSTAB = """/dev/vda /    ext4  noatime           0 1
tmpfs    /tmp tmpfs mode=1777,size=1g 0 0
"""
NETWORK = """[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
SSHD = """HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
KexAlgorithms curve25519-sha256
MaxStartups 100
MaxSessions 100
"""
DPKG = """force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/locale/*
"""


def before_second_stage() -> dict[str, str]:
    """Return what must be in place before packages are configured, so that the initrd is built once and small."""
    return {
        "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=gzip\n",
        "usr/share/initramfs-tools/modules.d/lab": INITRD_MODULES,
        "etc/dpkg/dpkg.cfg.d/lab": DPKG,
    }


def after_second_stage(sources_list: str, apt_settings: list[str], authorized_key: str, host_key: str) -> dict[str, str]:
    """Return the configuration of the finished system: path relative to the root, and text.

    sources_list and apt_settings come from the machine's apt, the keys are the lab's own.
    """
    names = " ".join(f"lab{number}" for number in range(MAX_NUMBER + 1))
    return {
        "etc/fstab": FSTAB,
        "etc/hostname": "lab\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {names}\n",
        "etc/resolv.conf": "nameserver 10.0.2.3\noptions timeout:3\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/apt/sources.list": sources_list,
        "etc/apt/apt.conf.d/50lab": "".join(f"{line}\n" for line in ['Acquire::Languages "none";', *apt_settings]),
        "etc/systemd/network/10-lab.network": NETWORK,
        "etc/ssh/sshd_config.d/lab.conf": SSHD,
        "etc/ssh/ssh_host_ed25519_key": host_key,
        "root/.ssh/authorized_keys": authorized_key,
    }


def mode_of(path: str) -> int:
    """Return the permissions of one of these files: private keys are for root alone."""
    return 0o600 if path.endswith(("_key", "authorized_keys")) else 0o644
