# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules share; doc_fragments/hybrid_vmm.py describes the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from . import policy
from .errors import DefinitionError, PolicyError
from .paths import CONFIG_DIR, RUN_DIR, Paths
from .reader import Reader

#: Longest reason that QEMU takes.
REASON_BYTES = 256


def host_spec(timeout: float) -> dict[str, dict[str, Any]]:
    """Return the common options.

    :param timeout: default time limit of the module, seconds.
    """
    return {
        "timeout": {"type": "float", "default": timeout},
        "config_dir": {"type": "path", "default": CONFIG_DIR},
        "run_dir": {"type": "path", "default": RUN_DIR},
    }


def paths_of(params: Mapping[str, Any]) -> Paths:
    """Return the host's folders from a module's parameters."""
    return Paths(config_dir=params["config_dir"], run_dir=params["run_dir"])


def timeout_problem(timeout: float) -> str:
    """Return what is wrong with a time limit, nothing when it is right."""
    return "" if 0 < timeout <= 86400 else f"timeout: {timeout:g} is not between 0 and 86400 seconds"


def reason_problem(reason: Optional[str]) -> str:
    """Return what is wrong with the reason of a switch, nothing when it is right or not given. QEMU has the same limit."""
    if reason is None:
        return ""
    if any(not char.isprintable() for char in reason):
        return "reason: control characters are not allowed"
    size = len(reason.encode())
    return f"reason: {size} bytes are more than {REASON_BYTES}" if size > REASON_BYTES else ""


def for_ms(text: Optional[str]) -> Optional[int]:
    """Return a time limit such as ``10m`` in milliseconds, None when there is none.

    :raises PolicyError: it is not a duration between a second and 30 days.
    """
    if text is None:
        return None
    try:
        return policy.duration(Reader({"for": text}), "for", None, 1000, policy.MAX_HOLD_MS)
    except DefinitionError as exc:
        raise PolicyError(str(exc)) from exc


def names_problem(names: Optional[Sequence[str]]) -> str:
    """Return what is wrong with a list of VM names, nothing when it is right or not given."""
    if names is None:
        return ""
    if not names:
        return "name: the list is empty; name VMs, or 'all'"
    if "all" in names and len(names) > 1:
        return "name: 'all' cannot be combined with names"
    return ""
