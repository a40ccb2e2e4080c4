# SPDX-License-Identifier: GPL-3.0-or-later
"""The series as files: order, names, identity, licences. No source tree is needed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hybrid_qemu_series import Series, SeriesError, parse_series, read_series

SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"
ROLE_IDENTITY = "From: hybrid-vmm <hybrid-vmm@localhost>"


def new_files(text: str) -> dict[str, str]:
    """Return the content of the files that a patch adds."""
    found = {}
    for part in re.split(r"^diff --git ", text, flags=re.MULTILINE)[1:]:
        if "\nnew file mode " in part:
            name = part.splitlines()[0].rpartition(" b/")[2]
            found[name] = "\n".join(line[1:] for line in part.splitlines() if line.startswith("+") and not line.startswith("+++"))
    return found


def write(folder: Path, series: str, **patches: str) -> Path:
    """Make a folder with a series."""
    folder.mkdir()
    (folder / "series").write_text(series)
    (folder / "INTERFACE").write_text("1\n")
    for name, text in patches.items():
        (folder / name).write_text(text)
    return folder


def test_series_is_well_formed(series: Series) -> None:
    # read_series refuses missing, unlisted, wrongly named and wrongly numbered patches
    assert series.interface == 1


def test_patch_is_neutral(patch: Path) -> None:
    text = patch.read_text(encoding="utf-8")
    header = text.partition("\n\n")[0].splitlines()
    assert header[0] == f"From {'0' * 40} Mon Sep 17 00:00:00 2001"
    assert header[1] == ROLE_IDENTITY
    assert not [line for line in header if line.startswith("Date:")]
    assert not re.search(r"^(signed-off|co-developed|reviewed|tested|acked)-by:", text, re.IGNORECASE | re.MULTILINE)


def test_patch_says_why(patch: Path) -> None:
    message = patch.read_text(encoding="utf-8").partition("\n---\n")[0].partition("\n\n")[2]
    assert len(message.split()) >= 5, f"{patch.name}: the message has no body that says why"


def test_new_files_have_a_licence(patch: Path) -> None:
    # QEMU's trace.h files are one generated-looking line; they have no header anywhere in QEMU
    added = {name: text for name, text in new_files(patch.read_text(encoding="utf-8")).items() if Path(name).name != "trace.h"}
    wrong = [name for name, text in added.items() if SPDX not in text]
    assert not wrong, f"{patch.name} adds {', '.join(wrong)} without '{SPDX}'"


def test_identity(tmp_path: Path) -> None:
    names = ["0001-accel-one.patch", "0002-qapi-two.patch"]
    listing = "# a comment\n\n" + "\n".join(names) + "\n"
    folder = write(tmp_path / "s", listing, **{names[0]: "one", names[1]: "two"})
    digest = hashlib.sha256((listing + "one" + "two").encode()).hexdigest()

    series = read_series(str(folder))

    assert series.sha256 == digest
    assert series.identity == f"h1.{digest[:8]}"
    assert series.patches == tuple(names)
    (folder / names[1]).write_text("three")
    assert read_series(str(folder)).identity != series.identity


def test_identity_has_the_interface_version(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", "")
    (folder / "INTERFACE").write_text("2\n")
    assert read_series(str(folder)).identity.startswith("h2.")


def test_empty_series_is_a_series(tmp_path: Path) -> None:
    assert read_series(str(write(tmp_path / "s", "# nothing yet\n"))).patches == ()


@pytest.mark.parametrize(
    ("listing", "patches", "message"),
    [
        ("0001-a-b.patch\n", {}, "{folder}/series lists 0001-a-b.patch, which is not in the folder"),
        ("", {"0001-a-b.patch": ""}, "0001-a-b.patch is in {folder} but not listed in its series file"),
        ("fix.patch\n", {"fix.patch": ""}, "fix.patch: a patch is named NNNN-area-subject.patch"),
        ("0001-fix.patch\n", {"0001-fix.patch": ""}, "0001-fix.patch: a patch is named NNNN-area-subject.patch"),
        ("0002-a-b.patch\n", {"0002-a-b.patch": ""}, "0002-a-b.patch: number 0001 is next in the series"),
        ("0001-a-b.patch -p2\n", {"0001-a-b.patch": ""}, "series line 1: one patch name per line, not '0001-a-b.patch -p2'"),
        ("0001-a-b.patch\n0001-a-b.patch\n", {"0001-a-b.patch": ""}, "series line 2: 0001-a-b.patch is listed twice"),
    ],
)
def test_malformed_series(tmp_path: Path, listing: str, patches: dict[str, str], message: str) -> None:
    folder = write(tmp_path / "s", listing, **patches)
    with pytest.raises(SeriesError) as error:
        read_series(str(folder))
    assert str(error.value) == message.format(folder=folder)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match=r"no series file: .*/nowhere/series: No such file or directory"):
        read_series(str(tmp_path / "nowhere"))
    folder = write(tmp_path / "s", "")
    (folder / "INTERFACE").write_text("one")
    with pytest.raises(SeriesError, match=r"INTERFACE: 'one' is not an interface version \(a whole number\)"):
        read_series(str(folder))


def test_parse_series_ignores_comments() -> None:
    assert parse_series("# head\n\n0001-a-b.patch  # why\n") == ["0001-a-b.patch"]
