# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of documents that are made from a report: each stands between two marks, and is replaced there."""

from __future__ import annotations

import re
from collections.abc import Mapping


def with_tables(text: str, subject: str, tables: Mapping[str, str]) -> str:
    """Return a document with these tables, by name; `subject` is what its marks and the make target <subject>-docs begin with.

    Raises ValueError when it does not have a table's marks once.
    """
    for name, table in tables.items():
        marks = rf"(<!-- {subject} {name}: make {subject}-docs -->\n).*?(<!-- end of {subject} {name} -->)"
        text, times = re.subn(marks, lambda found: found[1] + table + "\n" + found[2], text, flags=re.DOTALL)  # noqa: B023 - used at once
        if times != 1:
            raise ValueError(f"the document has {times} places for the table of {name}")
    return text
