# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads untrusted nested data key by key, with errors that name the path, the value and what is allowed.

Pure; used for VM definitions (definition.py) and policies (policy.py).  Strict on purpose: nothing is converted, so that
``vcpus: "2"`` is an error on the controller and not a surprise on the host.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .errors import DefinitionError


def show(value: Any) -> str:
    """Return a value as errors show it: strings in quotes, long ones shortened."""
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Reader:
    """Reads one mapping; every key is to be read once, then ``finish()`` refuses what is left.

    :param data: the mapping, e.g. one disk.
    :param path: where it is, e.g. ``disks[1]``; empty at the top.
    :raises DefinitionError: from every method, when the value is not allowed.
    """

    def __init__(self, data: Any, path: str = "") -> None:
        self.path = path
        if not isinstance(data, Mapping):
            where = f"{path}: " if path else ""
            raise DefinitionError(f"{where}{show(data)} is not a mapping")
        self._data = data
        self._known: list[str] = []

    def at(self, key: str) -> str:
        """Return the path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, problem: str) -> DefinitionError:
        """Return (not raise) the error for a key."""
        return DefinitionError(f"{self.at(key)}: {problem}")

    def _get(self, key: str, required: bool) -> Any:
        self._known.append(key)
        value = self._data.get(key)
        if value is None and required:
            raise self.fail(key, "is missing")
        return value

    def text(self, key: str, default: Optional[str] = None, *, pattern: str = "", what: str = "", required: bool = False) -> Optional[str]:
        """Read a string.

        :param pattern: regular expression for the whole string.
        :param what: what the pattern describes, for the error: ``'x' is not <what>``.
        """
        value = self._get(key, required)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(key, f"{show(value)} is not a string")
        if any(ord(char) < 32 for char in value):
            raise self.fail(key, "control characters are not allowed")
        if pattern and not re.fullmatch(pattern, value):
            raise self.fail(key, f"{show(value)} is not {what}")
        return value

    def path_name(self, key: str, default: Optional[str] = None, *, required: bool = False) -> Optional[str]:
        """Read an absolute path of this host."""
        return self.text(key, default, pattern=r"/.+", what="an absolute path", required=required)

    def number(self, key: str, default: int, low: int, high: int) -> int:
        """Read a whole number between low and high, both included."""
        value = self._get(key, False)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(key, f"{show(value)} is not a whole number")
        if not low <= value <= high:
            raise self.fail(key, f"{value} is not between {low} and {high}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Read true or false."""
        value = self._get(key, False)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, f"{show(value)} is not true or false")
        return value

    def choice(self, key: str, choices: Sequence[str], default: Optional[str] = None) -> str:
        """Read one of several words; required when there is no default.

        YAML 1.1 reads an unquoted on or off as a boolean: where these are choices, that is what was meant.
        """
        value = self._get(key, default is None)
        if isinstance(value, bool) and {"on", "off"} <= set(choices):
            value = "on" if value else "off"
        if value is None:
            assert default is not None
            return default
        if not isinstance(value, str) or value not in choices:
            allowed = ", ".join(f"'{item}'" for item in choices)
            raise self.fail(key, f"{show(value)} is not one of {allowed}")
        return value

    def mapping(self, key: str, *, required: bool = False) -> Mapping[str, Any]:
        """Read a mapping, an empty one when there is none."""
        value = self._get(key, required)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail(key, f"{show(value)} is not a mapping")
        return value

    def items(self, key: str, limit: int) -> list[Any]:
        """Read a list of at most ``limit`` items of any kind."""
        value = self._get(key, False)
        if value is None:
            return []
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
            raise self.fail(key, f"{show(value)} is not a list")
        if len(value) > limit:
            raise self.fail(key, f"{len(value)} items are more than {limit}")
        return list(value)

    def texts(self, key: str, limit: int, *, pattern: str = "", what: str = "") -> list[str]:
        """Read a list of strings; pattern and what as in text()."""
        result = []
        for index, value in enumerate(self.items(key, limit)):
            item = Reader({f"{key}[{index}]": value}, self.path)
            text = item.text(f"{key}[{index}]", pattern=pattern, what=what, required=True)
            assert text is not None
            result.append(text)
        return result

    def finish(self) -> None:
        """Refuse keys that nobody read."""
        for key in self._data:
            if key in self._known:
                continue
            near = difflib.get_close_matches(str(key), self._known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"allowed: {', '.join(self._known)}"
            raise self.fail(str(key), f"unknown key, {hint}")
