# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the documents share: the repository's files, the documents and what is quoted in them."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "roles" / "hybrid_qemu_build" / "files" / "patches"

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


@functools.cache
def tracked() -> list[str]:
    """Return the paths of all files that git knows and that are there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


@functools.cache
def text(name: str) -> str:
    """Return a file's text; what is not UTF-8 is replaced."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def documents() -> list[str]:
    """Return the paths of all documents."""
    found = {str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    return sorted(found | {name for name in tracked() if name.endswith(".md")})


def prose(name: str) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", text(name))


def spans(name: str) -> list[str]:
    """Return what a document writes in code style outside of fenced blocks."""
    return SPAN.findall(prose(name))


def section(name: str, heading: str) -> str:
    """Return the text below a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text(name), re.MULTILINE)
    assert found, f"{name} has no heading '{heading}'"
    rest = text(name)[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", FENCE.sub(lambda block: " " * len(block[0]), rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(body: str) -> list[list[str]]:
    """Return the cells of the rows of all tables in a piece of text, headings left out."""
    result = []
    lines = body.splitlines()
    for index, line in enumerate(lines):
        heading = index + 1 < len(lines) and re.match(r"\|[-| ]+\|$", lines[index + 1])
        if line.startswith("|") and not heading and not re.match(r"\|[-| ]+\|$", line):
            result.append([cell.strip() for cell in re.split(r"(?<=\s)\|(?=\s)", line.strip()[1:-1])])
    return result


def code(cell: str) -> list[str]:
    """Return what a piece of text has in code style."""
    return SPAN.findall(cell)


@functools.cache
def added() -> dict[str, str]:
    """Return by file what the series adds to it: the whole text of new files, the added lines of others."""
    result: dict[str, list[str]] = {}
    for patch in sorted(PATCHES.glob("*.patch")):
        current = None
        for line in patch.read_text(encoding="utf-8").splitlines():
            if line.startswith("+++ b/"):
                current = line[6:]
                result.setdefault(current, [])
            elif line.startswith("diff --git"):
                current = None
            elif current and line.startswith("+"):
                result[current].append(line[1:])
            elif current and line.startswith("-") and not line.startswith("---") and line[1:] in result[current]:
                # A later patch of the series replaces what an earlier one added.
                result[current].remove(line[1:])
    return {name: "\n".join(lines) + "\n" for name, lines in result.items()}


@functools.cache
def patches_text() -> str:
    """Return all patches as they are, context included."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(PATCHES.glob("*.patch")))
