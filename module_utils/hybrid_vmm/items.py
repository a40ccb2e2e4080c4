# SPDX-License-Identifier: GPL-3.0-or-later
"""From what an inventory says about VMs (role variable hybrid_vm_vms) to a plan for one host.  Pure.

An item is a definition (definition.py) and what a host needs to bring it about: state, autostart, where disks come
from, the contents of a cloud-init seed.  What is done with a plan does not belong here: that is provision.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import definition
from .errors import DefinitionError
from .paths import Paths
from .reader import Reader

#: Kernels, initrds and images that several VMs share; relative names in an item mean this folder.
IMAGES_DIR = "/var/lib/hybrid-vmm-images"
STATES = ("running", "stopped", "absent")
_OWN_KEYS = ("state", "autostart", "seed")
_SHARED_FILES = ("kernel", "initrd", "firmware")


def plan(items: Any, host: str, variable: str = "hybrid_vm_vms") -> List[Dict[str, Any]]:
    """Check all items and return what the module hybrid_vm_state takes.

    :param items: the list from the inventory.
    :param host: inventory name; goes into derived UUIDs.
    :raises DefinitionError: e.g. ``hybrid_vm_vms[1] (web2): disks[0].bus: 'ide9' is not one of ...``.
    """
    if not isinstance(items, (list, tuple)):
        raise DefinitionError(f"{variable}: not a list")
    result: List[Dict[str, Any]] = []
    for index, item in enumerate(items):
        label = f"{variable}[{index}]"
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            label += f" ({item['name']})"
        try:
            entry = _entry(item, host)
        except DefinitionError as exc:
            raise DefinitionError(f"{label}: {_without_name(str(exc), item)}") from exc
        if any(other["name"] == entry["name"] for other in result):
            raise DefinitionError(f"{label}: name: there are two VMs of this name")
        result.append(entry)
    return result


def _without_name(message: str, item: Any) -> str:
    """definition.complete() begins its errors with the VM's name, which the label has already."""
    name = item.get("name") if isinstance(item, Mapping) else None
    head = f"{name}: "
    return message[len(head) :] if isinstance(name, str) and message.startswith(head) else message


def _entry(item: Any, host: str) -> Dict[str, Any]:
    if not isinstance(item, Mapping):
        raise DefinitionError("not a mapping with at least the key 'name'")
    name = definition.check_name(item.get("name"))
    own = Reader({key: item[key] for key in _OWN_KEYS if key in item})
    state = own.choice("state", STATES, "running")
    entry: Dict[str, Any] = {"name": name, "state": state, "autostart": own.flag("autostart", state == "running")}
    if state == "absent":
        return entry
    rest = {key: item[key] for key in item if key not in _OWN_KEYS}
    for key in _SHARED_FILES:
        if isinstance(rest.get(key), str):
            rest[key] = os.path.join(IMAGES_DIR, rest[key])
    rest["disks"], sources = _split_disks(rest.get("disks", []))
    complete = definition.complete(rest, host)
    entry["seed"], complete["seed"] = _seed(item.get("seed"), complete)
    entry["definition"] = complete
    entry["disks"] = [
        {
            "file": os.path.join(Paths().state(name), disk["file"]),
            "format": disk["format"],
            "size": disk["size"],
            "source": source,
        }
        for disk, source in zip(complete["disks"], sources)
    ]
    entry["sandbox"] = _sandbox(name, complete)
    return entry


def _split_disks(disks: Any) -> Tuple[Any, List[Optional[str]]]:
    """Take ``source`` out of the disks: QEMU is not told where an image came from."""
    if not isinstance(disks, (list, tuple)):
        return disks, []
    rest, sources = [], []
    for index, disk in enumerate(disks):
        source = None
        if isinstance(disk, Mapping):
            source = Reader({"source": disk.get("source")}, f"disks[{index}]").text("source", pattern=r".+", what="a file name")
            disk = {key: disk[key] for key in disk if key != "source"}
        rest.append(disk)
        sources.append(os.path.join(IMAGES_DIR, source) if source else None)
    return rest, sources


def _seed(seed: Any, complete: Mapping[str, Any]) -> Tuple[Optional[Dict[str, str]], Optional[str]]:
    """Return the seed's files, and the image's path: named after its contents, so that new contents are a new definition."""
    if seed is None:
        return None, None
    if isinstance(seed, str):
        return None, os.path.join(IMAGES_DIR, seed)
    if not isinstance(seed, Mapping):
        raise DefinitionError("seed: neither the path of an image nor a mapping with user_data, meta_data, network_config")
    unknown = sorted(set(seed) - {"user_data", "meta_data", "network_config"})
    if unknown:
        raise DefinitionError(f"seed.{unknown[0]}: unknown key; known are meta_data, network_config, user_data")
    files = {
        "user-data": _document(seed.get("user_data", {}), "seed.user_data", "#cloud-config\n"),
        "meta-data": _document(
            {"instance-id": complete["uuid"], "local-hostname": complete["name"], **_mapping(seed, "meta_data")},
            "seed.meta_data",
        ),
    }
    if seed.get("network_config") is not None:
        files["network-config"] = _document(seed["network_config"], "seed.network_config")
    text = json.dumps(files, sort_keys=True)
    name = f"seed-{hashlib.sha256(text.encode()).hexdigest()[:12]}.iso"
    return files, os.path.join(Paths().state(complete["name"]), name)


def _mapping(seed: Mapping[str, Any], key: str) -> Dict[str, Any]:
    value = seed.get(key) or {}
    if not isinstance(value, Mapping):
        raise DefinitionError(f"seed.{key}: not a mapping")
    return dict(value)


def _document(value: Any, path: str, head: str = "") -> str:
    """Return YAML text; JSON is YAML."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{path}: neither text nor a mapping")
    return head + json.dumps(value, indent=1, sort_keys=True, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Make JSON of Ansible's lazy containers."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    return str(value)


def _sandbox(name: str, complete: Mapping[str, Any]) -> List[str]:
    """Return what a VM's unit needs beyond (or not even) what hybrid-vm@.service gives every VM."""
    lines = []
    for index, disk in enumerate(complete["disks"]):
        path = os.path.normpath(os.path.join(Paths().state(name), disk["file"]))
        if re.search(r"[\s%\"'\\]", path):
            raise DefinitionError(f"disks[{index}].file: '{path}' has a space, a quote or a percent sign, which units cannot name")
        if path.startswith("/dev/"):
            lines.append(f"DeviceAllow={path} {'r' if disk['readonly'] else 'rw'}")
        elif not path.startswith(Paths().state(name) + "/") and not disk["readonly"]:
            lines.append(f"ReadWritePaths={path}")
    if any(network["type"] == "tap" for network in complete["networks"]):
        lines.append("DeviceAllow=/dev/net/tun rw")
    if not complete["networks"]:
        lines.append("PrivateNetwork=yes")
    return lines
