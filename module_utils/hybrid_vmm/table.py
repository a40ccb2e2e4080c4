# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain text tables, for hybridctl and for the summary of playbooks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

#: Columns of a table of switches: heading, key of the row, whether to show it although no row has a value.
SWITCH_COLUMNS = (
    ("VM", "vm", True),
    ("HOST", "host", True),
    ("BEFORE", "before", True),
    ("AFTER", "after", True),
    ("PAUSE", "pause_us", True),
    ("OK", "ok", True),
    ("MISSED", "heartbeats_missed", False),
    ("GUEST ERRORS", "guest_errors", False),
    ("ERROR", "error", False),
)


def pause(microseconds: Optional[int]) -> str:
    """Format a pause for people: ``850 us``, ``2.41 ms``, ``1.20 s``; a hyphen when there is none to tell."""
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"{microseconds} us"
    if microseconds < 1000000:
        return f"{microseconds / 1000:.2f} ms"
    return f"{microseconds / 1000000:.2f} s"


def cell(key: str, value: Any) -> str:
    """Format one value; line breaks and control characters, which a guest or an error may bring, become spaces."""
    if key.endswith("_us") and isinstance(value, int):
        return pause(value)
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(char if char.isprintable() else " " for char in str(value))


def render(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]]) -> str:
    """Return aligned text, headings first, no trailing blanks.

    :param columns: heading and key of the row for each column.
    """
    lines: list[list[str]] = [[heading for heading, _key in columns]]
    lines += [[cell(key, row.get(key)) for _heading, key in columns] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)


def switch_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of switches; columns that no row fills are left out where that is allowed."""
    columns = [(heading, key) for heading, key, always in SWITCH_COLUMNS if always or any(row.get(key) not in (None, "") for row in rows)]
    return render(rows, columns)
