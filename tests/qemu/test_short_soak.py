# SPDX-License-Identifier: GPL-3.0-or-later
"""A minute of the soak (tests/soak), so that every run of all tests has one."""

from __future__ import annotations

import os
import pathlib
import sys

import harness
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "soak"))
import soak
from loads import LOADS
from plan import CONFIGURATIONS

MINUTES = float(os.environ.get("HYBRID_TEST_SOAK", "1"))


@pytest.mark.parametrize("name", ["on-2"])
def test_short_soak(host, binary, seed, name):
    if not isinstance(host, harness.LabHost):
        pytest.skip("a Linux guest is booted under KVM, in a lab host")
    report = soak.Report(seed, MINUTES, binary, 1, pathlib.Path(os.devnull))
    entry = soak.soak(host, soak.Files(host, binary), CONFIGURATIONS[name], seed, MINUTES, report.say_how)
    assert entry["failure"] is None, f"seed {seed}: {entry['failure']}"
    assert entry["switches"] > 0
    assert all(entry["verified"][load] > 0 for load in LOADS)
    print(f"seed {seed}: {entry['switches']} switches, verified {entry['verified']}")
