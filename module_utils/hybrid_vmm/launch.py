# SPDX-License-Identifier: GPL-3.0-or-later
"""``hybrid-vm-run <vm>``: what the unit hybrid-vm@<vm>.service starts.  Reads the definition, checks, becomes QEMU.

For the unit: Type=exec, User=hybrid-qemu (in group kvm, not in group hybrid-vmm), UMask=0007, and
``LoadCredential=definition:/etc/hybrid-vmm/vms/%i.json``: the definition is then read from the credential, so that the
user of a compromised QEMU can neither read other definitions nor reach other VMs' sockets.  Without a credential it is
read from /etc/hybrid-vmm.  /run/hybrid-vmm/<vm> must exist, writable for that user, setgid hybrid-vmm.  The policy of a VM that has one is in
/run/hybrid-vmm/<vm>.policy.json.

Exit status: 78 (EX_CONFIG) with one line on stderr when QEMU cannot be started; otherwise QEMU's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Optional

from . import command, definition, store
from .definition import Vm
from .errors import HybridError, LaunchError
from .paths import CONFIG_DIR, RUN_DIR, STATE_DIR, Paths

EX_CONFIG = 78
CREDENTIAL = "definition"
KVM_DEVICE = "/dev/kvm"


def load_definition(name: str, paths: Paths) -> Vm:
    """Read a VM's definition, from systemd's credential if the unit loaded one.

    :raises DefinitionError, StoreError, UnknownVm: as store.load().
    :raises LaunchError: the credential is another VM's.
    """
    definition.check_name(name)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = os.path.join(folder, CREDENTIAL) if folder else ""
    if not credential or not os.path.exists(credential):
        return store.load(paths, name)
    vm = store.load_file(credential)
    if vm.name != name:
        raise LaunchError(f"{credential}: name: '{vm.name}' is not '{name}'")
    return vm


def preflight(vm: Vm, paths: Paths, kvm_device: str = KVM_DEVICE) -> None:
    """Check that this host has what the definition names, so that errors name the key and not QEMU's inside.

    :raises LaunchError: with the path of the value in the definition.
    """
    _need("qemu", vm.qemu, os.X_OK, "install it with role hybrid_qemu_install")
    if vm.accel != "tcg":
        _need(
            "accel",
            kvm_device,
            os.R_OK | os.W_OK,
            "load the kvm module and add the user to group kvm (role hybrid_host)",
        )
    for key in ("firmware", "kernel", "initrd", "seed"):
        path = getattr(vm, key)
        if path is not None:
            _need(key, path, os.R_OK, "put the file there or correct the definition")
    for index, disk in enumerate(vm.disks):
        rights = os.R_OK if disk.readonly else os.R_OK | os.W_OK
        path = command.disk_path(vm, disk, paths)
        _need(f"disks[{index}].file", path, rights, "create it (role hybrid_vm) or correct the definition")
    for folder in (paths.run(vm.name), paths.state(vm.name)):
        _need("folder", folder, os.W_OK | os.X_OK, "start the VM through systemctl, its unit and role hybrid_vm make it")
    longest = paths.control(vm.name)
    if len(longest.encode()) > 107:
        raise LaunchError(f"name: {longest} is longer than the 107 bytes that a socket may have")


def _need(key: str, path: str, rights: int, remedy: str) -> None:
    if not os.path.exists(path):
        raise LaunchError(f"{key}: {path} does not exist: {remedy}")
    if not os.access(path, rights):
        wish = "executed" if rights == os.X_OK else "written" if rights & os.W_OK else "read"
        raise LaunchError(f"{key}: {path} cannot be {wish} by uid {os.geteuid()}: {remedy}")


def parser() -> argparse.ArgumentParser:
    """Return the command line of hybrid-vm-run."""
    result = argparse.ArgumentParser(prog="hybrid-vm-run", description="Start the QEMU of a VM in this process.")
    result.add_argument("vm", help="name of the VM")
    result.add_argument("--print", action="store_true", dest="show", help="show the QEMU command line and stop")
    result.add_argument("--config-dir", default=CONFIG_DIR, help="folder of vms/ (%(default)s)")
    result.add_argument("--run-dir", default=RUN_DIR, help="folder of the sockets (%(default)s)")
    result.add_argument("--state-dir", default=STATE_DIR, help="folder of the disks (%(default)s)")
    return result


def main(argv: Optional[list[str]] = None) -> int:
    """Run hybrid-vm-run; returns only on failure and with --print.

    :return: exit status.
    """
    options = parser().parse_args(argv)
    paths = Paths(options.config_dir, options.run_dir, options.state_dir)
    try:
        vm = load_definition(options.vm, paths)
        policy = paths.started_policy(vm.name)
        words = command.qemu_command(vm, paths, policy if os.path.exists(policy) else None)
        if options.show:
            print(command.shell_text(words))
            return 0
        preflight(vm, paths)
        os.umask(0o007)
        sys.stdout.flush()
        os.execv(words[0], words)
    except HybridError as exc:
        print(f"hybrid-vm-run: VM '{options.vm}': {exc.message}", file=sys.stderr)
    except OSError as exc:
        print(f"hybrid-vm-run: VM '{options.vm}': qemu: cannot execute {words[0]}: {exc.strerror}", file=sys.stderr)
    return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
