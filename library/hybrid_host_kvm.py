#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load the kvm module and prove that it can be used."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_host_kvm
short_description: Load the host's kvm module and prove that KVM can be used
description:
  - Finds out which kvm module the CPU needs, loads it, opens C(/dev/kvm) and creates an empty VM.
  - A C(/dev/kvm) that merely exists is not taken as proof.
  - Whether KVM runs a guest at a useful speed does not belong here.
attributes:
  check_mode:
    support: partial
    details: A module that is not loaded yet is only looked up, so that what C(/dev/kvm) would answer stays unknown.
  diff_mode:
    support: none
  idempotent:
    support: full
options: {}
author: hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: KVM can be used
  hybrid_host_kvm:
  register: kvm
"""

RETURN = r"""
module:
  description: The kvm module of this CPU's vendor.
  type: str
  returned: success
  sample: kvm_amd
api_version:
  description: What C(KVM_GET_API_VERSION) answered. V(null) in check mode when the module is not loaded yet.
  type: int
  returned: success
  sample: 12
"""

import fcntl
import os

from ansible.module_utils.basic import AnsibleModule

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_API_VERSION = 12
MODULE_OF_FLAG = {"svm": "kvm_amd", "vmx": "kvm_intel"}


class KvmError(Exception):
    """KVM cannot be used; the message says what is missing and what to do."""


def needed_module(cpuinfo):
    """Return the kvm module for a /proc/cpuinfo text."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            for flag, module in MODULE_OF_FLAG.items():
                if flag in value.split():
                    return module
            break
    raise KvmError(
        "host without KVM: the CPU offers neither 'svm' nor 'vmx' (/proc/cpuinfo). Enable virtualization in the"
        " firmware, or nested virtualization where this machine is itself a VM"
    )


def is_loaded(module, modules):
    """Tell from a /proc/modules text, or from /sys for what is built in, whether a module is there."""
    return any(line.split(" ", 1)[0] == module for line in modules.splitlines()) or os.path.isdir("/sys/module/" + module)


def probe(path):
    """Open the device, check the API's version and create a VM; returns the version."""
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KvmError("host without KVM: '%s' cannot be opened: %s" % (path, error.strerror)) from error
    try:
        version = fcntl.ioctl(device, KVM_GET_API_VERSION, 0)
        if version != KVM_API_VERSION:
            raise KvmError("host without KVM: '%s' answers API version %d, expected %d" % (path, version, KVM_API_VERSION))
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
    except OSError as error:
        raise KvmError(
            "host without KVM: '%s' opens, but creating a VM fails: %s. Look at 'dmesg | grep kvm'" % (path, error.strerror)
        ) from error
    finally:
        os.close(device)
    return version


def read(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()


class KvmHost:
    def __init__(self, module):
        self.module = module

    def run(self):
        name = needed_module(read("/proc/cpuinfo"))
        loaded = is_loaded(name, read("/proc/modules"))
        if not loaded:
            self.load(name)
        version = None if self.module.check_mode and not loaded else probe("/dev/kvm")
        return {"changed": not loaded, "module": name, "api_version": version}

    def load(self, name):
        modprobe = self.module.get_bin_path("modprobe", required=True)
        dry = ["--dry-run"] if self.module.check_mode else []
        code, _out, err = self.module.run_command([modprobe, *dry, name])
        if code:
            raise KvmError(
                "host without KVM: kernel module '%s' cannot be loaded: %s" % (name, err.strip() or "modprobe exit %d" % code)
            )


def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        module.exit_json(**KvmHost(module).run())
    except KvmError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
