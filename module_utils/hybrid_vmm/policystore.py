# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies on disk: /etc/hybrid-vmm/policies/<vm>.json, in the compiled form.  Written as definitions are (store.py)."""

from __future__ import annotations

from typing import Any, Optional

from . import policy, store
from .errors import StoreError
from .paths import Paths


def load(paths: Paths, vm: str) -> Optional[dict[str, Any]]:
    """Return the stored policy of a VM, None when it has none.

    :raises StoreError: it cannot be read.
    :raises DefinitionError: it is not whole; the message begins with the file's name.
    """
    return load_file(paths.policy(vm))


def load_file(path: str) -> Optional[dict[str, Any]]:
    """Return the policy in a file, None when there is no such file.

    :raises StoreError, DefinitionError: as in load().
    """
    try:
        return store.read(path, policy.from_compiled)
    except StoreError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return None
        raise


def save(paths: Paths, vm: str, compiled: Optional[dict[str, Any]]) -> bool:
    """Write the policy of a VM, or remove it when it is None.

    :return: whether anything changed.
    :raises StoreError: it cannot be written; the old one is untouched.
    """
    path = paths.policy(vm)
    return store.remove(path) if compiled is None else store.write(path, store.dump(compiled))
