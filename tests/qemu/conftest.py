# SPDX-License-Identifier: GPL-3.0-or-later
"""One host and one pushed binary for the whole run."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import harness


def pytest_report_header() -> str:
    return f"QEMU tests: host {os.environ.get('HYBRID_TEST_HOST', 'lab')}, LAB={os.environ.get('LAB', '1')}, seed {SEED}"


SEED = int(os.environ.get("HYBRID_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """End the run when a test has brought down the lab host: what would follow says nothing about its tests."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host and (why := host.lost()):
        item.session.shouldfail = f"{item.nodeid}: {why}"
    return report


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


@pytest.fixture(scope="session")
def host():
    kind = os.environ.get("HYBRID_TEST_HOST", "lab")
    the_host = harness.LocalHost() if kind == "local" else harness.LabHost(os.environ.get("LAB", "1"))
    yield the_host
    the_host.close()


@pytest.fixture(scope="session")
def binary(host) -> str:
    """The binary's path on the host."""
    found = harness.find_binary()
    path = host.push(found if isinstance(host, harness.LocalHost) else harness.stripped(found), "qemu")
    host.run(f"{path} --version", timeout=120)
    return path


@pytest.fixture(scope="session")
def baremetal_kernel(host) -> str:
    return host.push(harness.build_baremetal(), "baremetal")


@pytest.fixture(scope="session")
def linux(host) -> tuple[str, str]:
    """Paths of the kernel and the initramfs on the host."""
    if not isinstance(host, harness.LabHost):
        pytest.skip("a Linux guest is booted under KVM, in a lab host")
    said = subprocess.run([sys.executable, "-m", "lab", "guest"], cwd=harness.REPO, capture_output=True, text=True, timeout=1500, check=False)
    if said.returncode:
        pytest.fail(f"the guest was not built: {said.stderr[-2000:]}", pytrace=False)
    folder = pathlib.Path(said.stdout.strip().splitlines()[-1])
    return host.push(folder / "vmlinuz", "vmlinuz"), host.push(folder / "initrd.img", "initrd")
