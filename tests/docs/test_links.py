# SPDX-License-Identifier: GPL-3.0-or-later
"""Relative links, paths, functions and tests that documents name exist."""

from __future__ import annotations

import ast
import fnmatch
import itertools
import re

import pytest
from documents import ROOT, added, documents, patches_text, prose, rows, section, spans, text, tracked

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOLDERS = {name.split("/")[0] for name in tracked() if "/" in name}
# Folders of QEMU's source that documents name: what is below them must be in the series.
QEMU_FOLDERS = ("accel/", "target/", "hw/", "qapi/", "include/", "migration/", "gdbstub/", "system/")
# Written by runs, never in the repository.
MADE = ("reports/",)


def anchors(name: str) -> set[str]:
    """Anchors of a document's headings, as code forges make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(name), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


def expand(pattern: str) -> list[str]:
    """``a/{b,c}`` as a list of paths."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    return list(
        itertools.chain.from_iterable(expand(pattern[: found.start()] + part + pattern[found.end() :]) for part in found[1].split(","))
    )


def exists(path: str) -> bool:
    path = path.rstrip("/")
    return any(name == path or name.startswith(path + "/") or fnmatch.fnmatch(name, path) for name in tracked())


@pytest.mark.parametrize("name", documents())
def test_links(name: str) -> None:
    for link in LINK.findall(prose(name)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.resolve().exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), f"{name}: {link}"


@pytest.mark.parametrize("name", documents())
def test_paths(name: str) -> None:
    """A path in code style whose first folder is one of ours, or of QEMU's, must be there (or in the series)."""
    for span in spans(name):
        for word in re.split(r"\s+", span):
            if "<" in word or "$" in word or word.startswith(MADE):
                continue
            for path in expand(word):
                if path.startswith(QEMU_FOLDERS):
                    assert path in added(), f"{name}: the series does not touch {path}"
                elif "/" in path and path.split("/")[0] in FOLDERS:
                    assert exists(path), f"{name}: {path}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/operations.md"])
def test_paths_in_blocks(name: str) -> None:
    """Playbooks and inventories that commands name."""
    for path in re.findall(r"\b((?:playbooks|inventories|tools|molecule|tests|roles)/[\w./@-]*\w)", text(name)):
        assert exists(path) or path.startswith("molecule/"), f"{name}: {path}"


def test_functions_of_the_series() -> None:
    """A word in code style with an underscore that looks like C must be in the series, or in our own code."""
    ours = "\n".join(text(path) for path in tracked() if path.endswith((".py", ".yml", ".j2", ".c", ".h")) or "/bin/" in path)
    for span in spans("docs/architecture.md"):
        if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", span):
            assert re.search(rf"\b{span}\b", patches_text()) or re.search(rf"\b{span}\b", ours), span


def test_constants_of_the_series() -> None:
    for word in set(re.findall(r"\b(?:KVM|CPU)_[A-Z_]+\b", text("docs/architecture.md"))):
        assert word in patches_text(), word


def test_numbers_of_patches() -> None:
    """`patch 0014` beside a file: that patch touches the file."""
    by_number = {path.name[:4]: path.read_text() for path in (ROOT / "roles/hybrid_qemu_build/files/patches").glob("*.patch")}
    found = 0
    for number, path in re.findall(r"patch (\d{4}), file `([^`]+)`", text("CONTRIBUTING.md")):
        assert f"+++ b/{path}" in by_number[number], f"patch {number} does not touch {path}"
        found += 1
    assert found > 5
    for name in documents():
        for number in re.findall(r"\bpatch(?:es)? (\d{4})", text(name)):
            assert number in by_number, f"{name}: patch {number}"


def pitfalls() -> dict[int, str]:
    """The last column of the table of pitfalls by number."""
    found = {int(row[0]): row[-1] for row in rows(section("docs/architecture.md", "Pitfalls"))}
    assert list(found) == list(range(1, len(found) + 1))
    return found


def cases() -> dict[str, set[int]]:
    """Pitfalls of each row of tests/qemu/cases.py."""
    found = {}
    for call in ast.walk(ast.parse(text("tests/qemu/cases.py"))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("Case", "storm"):
            name, *others = call.args
            if isinstance(name, ast.Constant):
                numbers = others[0].elts if others and call.func.id == "Case" and isinstance(others[0], ast.Tuple) else others
                found[str(name.value)] = {int(str(number.value)) for number in numbers if isinstance(number, ast.Constant)}
    return found


def test_pitfalls_name_their_tests() -> None:
    """Tests and rows of cases.py that the table names exist, and are about that pitfall where cases.py says what they are about."""
    sources = "".join(text(name) for name in tracked() if name.startswith("tests/qemu/test_"))
    for number, said in pitfalls().items():
        for function in re.findall(r"`(test_\w+)`", said):
            assert f"def {function}(" in sources, f"pitfall {number}: {function}"
        about = {name for name, numbers in cases().items() if number in numbers}
        words = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.sub(r"`[^`]*`", "", said)))
        if about:
            named = words & set(cases())
            assert named, f"pitfall {number} names none of {sorted(about)}"
            assert named <= about, f"pitfall {number}: cases.py does not say so of {sorted(named - about)}"
        unknown = {word for word in words if "-" in word} - set(cases())
        assert unknown == set(), f"pitfall {number}: not in cases.py: {sorted(unknown)}"


def test_every_pitfall_of_a_case_is_in_the_table() -> None:
    assert {number for numbers in cases().values() for number in numbers} <= set(pitfalls())
