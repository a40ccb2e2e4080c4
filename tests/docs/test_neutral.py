# SPDX-License-Identifier: GPL-3.0-or-later
"""Every source file says its licence, and no file says where or by whom it was made."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from documents import ROOT, text, tracked

# Files that have no room for a licence, or that are one.
UNMARKED = ("LICENSES/", "roles/hybrid_qemu_build/files/patches/", ".gitignore", ".gitkeep")
LICENCE = re.compile(r"SPDX-License-Identifier: ([\w.+-]+)")
KNOWN = {"GPL-3.0-or-later", "GPL-2.0-or-later", "GPL-2.0-only"}
HEAD = 600
# Without the underscores, so that this file does not contain them.
REGISTRIES = (r"deb\.deb_ian\.org", r"snapshot\.deb_ian\.org", r"py_pi\.org", "python_hosted", "github_usercontent", r"docker_\.io")
FOLDERS = (r"\.\./sha_red", r"(?<![\w$}/.-])/wo_rk/(?:main|shared)", "/ro_ot/w/")
WORDS = (r"CONTRACT_\.md", "clau_de", "anthro_pic", "chat_gpt", "language mo_del", "sub_agent")
FORBIDDEN = {
    "host name of a registry": "|".join(REGISTRIES).replace("_", ""),
    "folder outside of the repository": "|".join(FOLDERS).replace("_", ""),
    "word of a workplace": "|".join(WORDS).replace("_", ""),
    "address of a person": r"[\w.+-]+@(?!(?:[\w-]+\.)*(?:example|localhost|openssh)\b)[\w-]+\.(?:com|org|net|io|de)\b",
    "author line": r"^(?:Signed-off|Co-authored|Generated)-by:",
}


def readable(name: str) -> bool:
    return b"\0" not in (ROOT / name).read_bytes()[:4096]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_of_where_it_was_made(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what], re.IGNORECASE | re.MULTILINE)
    found = []
    for name in tracked():
        if name.startswith("LICENSES/") or not readable(name):
            continue
        found += [f"{name}: {match[0]}" for match in pattern.finditer(text(name))]
    assert found == []


def test_nothing_of_this_machine() -> None:
    """Its name, its folders and its apt mirror: they would be of no use elsewhere."""
    words = {str(Path.home() / ".cache")} if Path.home() != Path("/") else set()
    if len(socket.gethostname()) > 6 and socket.gethostname() != "localhost":
        words.add(socket.gethostname())
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt").glob("sources.list.d/*")]:
        if path.is_file():
            words |= {host for host in re.findall(r"https?://([\w.-]+)", path.read_text(errors="replace")) if host != "localhost"}
    found = [f"{name}: {word}" for name in tracked() if readable(name) for word in words if word in text(name)]
    assert found == []


def test_no_absolute_path_into_the_checkout() -> None:
    found = [name for name in tracked() if readable(name) and re.search(rf"(?<![\w.]){re.escape(str(ROOT))}\b", text(name))]
    assert len(ROOT.parts) < 3 or found == []


def marked(name: str) -> bool:
    return not (name.startswith(UNMARKED) or name.endswith(UNMARKED)) and readable(name) and bool(text(name))


def test_licences() -> None:
    """Every source file says its licence in its first lines; Ansible content and Python have one and the same."""
    wrong = []
    for name in tracked():
        if not marked(name) or name.endswith(".md"):
            continue
        found = LICENCE.search(text(name)[:HEAD])
        if not found:
            wrong.append(f"{name}: no SPDX-License-Identifier in its first lines")
        elif found[1] not in KNOWN or not (ROOT / "LICENSES" / f"{found[1]}.txt").exists():
            wrong.append(f"{name}: {found[1]} is not one of ours")
        elif name.endswith((".py", ".yml", ".j2", ".cfg")) and found[1] != "GPL-3.0-or-later":
            wrong.append(f"{name}: {found[1]}, Ansible content and Python are GPL-3.0-or-later")
    assert wrong == []


def test_licence_of_documents() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/operations.md"):
        assert LICENCE.search(text(name)[:HEAD]), name
