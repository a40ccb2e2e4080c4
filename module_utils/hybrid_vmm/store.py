# SPDX-License-Identifier: GPL-3.0-or-later
"""VM definitions on disk: /etc/hybrid-vmm/vms/<vm>.json.  A crash at any instant leaves the old file or the new one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from typing import Any, Callable, TypeVar

from . import definition
from .definition import Vm
from .errors import DefinitionError, StoreError, UnknownVm
from .paths import GROUP, Paths

Parsed = TypeVar("Parsed")

_SUFFIX = ".json"
#: A definition or policy is some kilobytes; more is a mistake or an attack.
_MAX_BYTES = 1 << 20


def names(paths: Paths) -> list[str]:
    """Return the names of all defined VMs, sorted; none when nothing was ever defined.

    :raises StoreError: the folder may not be read.
    """
    try:
        entries = os.listdir(paths.definitions)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise _unreadable(paths.definitions, exc) from exc
    return sorted(entry[: -len(_SUFFIX)] for entry in entries if entry.endswith(_SUFFIX) and entry[0] != ".")


def known(paths: Paths, wanted: Iterable[str]) -> list[str]:
    """Check that VMs are defined.

    :return: the wanted names, each once, in the order asked for.
    :raises UnknownVm: for the ones that are not; says which exist.
    """
    defined = names(paths)
    result = list(dict.fromkeys(wanted))
    missing = [name for name in result if name not in defined]
    if missing:
        which = ", ".join(f"'{name}'" for name in missing)
        noun = "VM" if len(missing) == 1 else "VMs"
        verb = "is" if len(missing) == 1 else "are"
        there = ", ".join(defined) or "none"
        raise UnknownVm(f"{noun} {which} {verb} not defined in {paths.definitions}; defined are: {there}")
    return result


def load(paths: Paths, name: str) -> Vm:
    """Read and check the definition of a VM.

    :raises UnknownVm: no such file.
    :raises StoreError: it cannot be read.
    :raises DefinitionError: it is not valid; the message begins with the file's name.
    """
    if name not in names(paths):
        known(paths, [name])
    vm = load_file(paths.definition(name))
    if vm.name != name:
        raise DefinitionError(f"{paths.definition(name)}: name: '{vm.name}' is not the file's name '{name}'")
    return vm


def load_file(path: str) -> Vm:
    """Read and check one definition file, whatever its name.

    :raises StoreError, DefinitionError: as in load().
    """
    return read(path, definition.parse)


def read(path: str, parse: Callable[[Any], Parsed]) -> Parsed:
    """Read one JSON file and check it.

    :param parse: returns what the data mean, or raises DefinitionError.
    :raises StoreError: it cannot be read; its cause is a FileNotFoundError when there is none.
    :raises DefinitionError: it is not valid; the message begins with the file's name.
    """
    try:
        with open(path, "rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if len(text) > _MAX_BYTES:
        raise DefinitionError(f"{path}: longer than {_MAX_BYTES} bytes, this cannot be a VM definition or a policy")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DefinitionError(f"{path}: not JSON: {exc}") from exc
    try:
        return parse(data)
    except DefinitionError as exc:
        raise DefinitionError(f"{path}: {exc}") from exc


def dump(data: dict[str, Any]) -> str:
    """Return the text of a definition file."""
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def save(paths: Paths, vm: Vm, mode: int = 0o640) -> bool:
    """Write a definition, as write() does.

    :return: whether the file's content changed.
    :raises StoreError: it cannot be written; the old file is untouched.
    """
    return write(paths.definition(vm.name), dump(vm.to_dict()), mode)


def write(path: str, text: str, mode: int = 0o640) -> bool:
    """Write a file atomically: new file, fsync, rename, fsync of the folder.

    :param mode: permissions of the file; its group is the folder's when that has the setgid bit.
    :return: whether the file's content changed.
    :raises StoreError: it cannot be written; the old file is untouched.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            if stream.read() == text:
                return False
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    folder, name = os.path.split(path)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
        temporary = ""
        _sync(folder)
    except OSError as exc:
        raise StoreError(f"cannot write {path}: {exc.strerror or exc}; it was left as it was") from exc
    finally:
        if temporary:
            os.unlink(temporary)
    return True


def remove(path: str) -> bool:
    """Remove a file for good.

    :return: whether there was one.
    :raises StoreError: it cannot be removed.
    """
    try:
        os.unlink(path)
        _sync(os.path.dirname(path))
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StoreError(f"cannot remove {path}: {exc.strerror or exc}") from exc
    return True


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: str, exc: OSError) -> StoreError:
    if isinstance(exc, PermissionError):
        return StoreError(f"no permission to read {path}: run as root or as a member of group '{GROUP}'")
    return StoreError(f"cannot read {path}: {exc.strerror or exc}")
