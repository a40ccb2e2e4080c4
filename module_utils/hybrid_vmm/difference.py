# SPDX-License-Identifier: GPL-3.0-or-later
"""One object from which both ``changed`` and ``diff`` come, so that they cannot disagree."""

from __future__ import annotations

from typing import Any


class Difference:
    """Collects what is (or would be) changed."""

    def __init__(self) -> None:
        self._items: list[tuple[str, Any, Any]] = []

    def note(self, name: str, before: Any, after: Any) -> bool:
        """Compare one value before and after.

        :param name: what has the value, e.g. the VM.
        :return: whether they differ; equal values leave no trace.
        """
        if before == after:
            return False
        self._items.append((name, before, after))
        return True

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self._items)

    def as_diff(self) -> dict[str, dict[str, Any]]:
        """Return what Ansible's ``--diff`` shows: only names that differ."""
        return {
            "before": {name: before for name, before, _after in self._items},
            "after": {name: after for name, _before, after in self._items},
        }
