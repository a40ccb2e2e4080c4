# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine's own apt says about mirrors and settings: a lab host uses the same. Names no mirror itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.errors import LabError
from lab.process import run

SETTINGS = re.compile(r"^Acquire::(https?|Check-Valid-Until|Check-Date|Retries|ForceIPv4|GzipIndexes)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One archive: where it is and which suite."""

    uri: str
    suite: str


def parse_sources(text: str, codename: str) -> list[Source]:
    """Pick the distribution's own archives out of ``apt-get indextargets --format '$(REPO_URI) $(RELEASE)'``.

    codename is the machine's. Other archives (vendors' repositories, backports) are left out.
    """
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    sources: list[Source] = []
    for line in text.splitlines():
        uri, _, suite = line.strip().partition(" ")
        source = Source(uri.rstrip("/"), suite)
        if suite in wanted and source not in sources:
            sources.append(source)
    return sources


def parse_settings(text: str) -> list[str]:
    """Pick proxies, certificates and checks out of ``apt-config dump Acquire``: how the mirror is reached."""
    return [line for line in text.splitlines() if SETTINGS.match(line) and not line.endswith(' "";')]


def for_distro(sources: list[Source], codename: str, distro: str) -> list[Source]:
    """Translate the machine's sources to another release of the same distribution on the same mirror."""
    return [Source(source.uri, distro + source.suite[len(codename) :]) for source in sources]


def sources_list(sources: list[Source]) -> str:
    """Return the text of an /etc/apt/sources.list."""
    return "".join(f"deb {source.uri} {source.suite} main\n" for source in sources)


def machine_codename() -> str:
    """Return the machine's release name from os-release, for example ``bookworm``.

    Raises LabError when the machine is not Debian.
    """
    with open("/etc/os-release", encoding="utf-8") as file:
        fields = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    if fields.get("ID", "").strip('"') != "debian":
        raise LabError("the lab takes its mirror from the machine's apt, and this machine is not Debian")
    return fields.get("VERSION_CODENAME", "").strip('"')


def machine_sources(distro: str) -> list[Source]:
    """Return the sources of a distribution's release on the mirror that this machine uses, the main suite first.

    Raises LabError when the machine's apt names no mirror.
    """
    codename = machine_codename()
    text = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
    sources = parse_sources(text, codename)
    if not any(source.suite == codename for source in sources):
        raise LabError(f"the machine's apt has no source for {codename}; see /etc/apt/sources.list.d")
    return sorted(for_distro(sources, codename, distro), key=lambda source: source.suite)


def machine_settings() -> list[str]:
    """Return the machine's apt settings that decide how a mirror is reached."""
    return parse_settings(run(["apt-config", "dump", "Acquire"]))
