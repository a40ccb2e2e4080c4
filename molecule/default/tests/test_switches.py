# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that check themselves live through switches at random moments."""

from __future__ import annotations

import json
import random
from typing import Any

from lab.heartbeat import after, clock_shift_ms, lost

VMS = ("check1", "check2")
SWITCHES = 20
# Runs on the host, in one process: starting Python takes longer there than many switches.
SCRIPT = """
import json, random, time
from hybrid_vmm import mode
from hybrid_vmm.paths import Paths

moments = random.Random({seed})
pauses = []
for number in range({switches}):
    time.sleep(moments.uniform(0.05, 1.5))
    outcome = mode.change(Paths(), {vms}, ("tcg", "kvm")[number % 2], 120, "molecule")
    assert outcome.error is None, outcome.error
    for result in outcome.results:
        assert result.changed, result
        pauses.append(result.pause_us)
print(json.dumps(pauses))
"""


def test_guests_live_through_switches(hypervisor: Any) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    before = {vm: hypervisor.wait_for_beats(vm, 3, 600) for vm in VMS}
    clocks = {vm: hypervisor.clocks(vm) for vm in VMS}
    pauses = json.loads(hypervisor.python(SCRIPT.format(seed=seed, switches=SWITCHES, vms=list(VMS))))
    assert len(pauses) == SWITCHES * len(VMS)
    assert all(pause > 0 for pause in pauses)
    for vm in VMS:
        console = hypervisor.wait_for_beats(vm, 5, 300)
        beats = after(console.beats, before[vm].beats[-1].sequence)
        assert console.errors == 0, console.complaints
        assert lost(beats) == 0
        assert all(later.mono_ms > earlier.mono_ms for earlier, later in zip(beats, beats[1:]))
        assert beats[-1].iters > beats[0].iters
        # real and monotonic time come from one clock source; a switch must not push one of them
        assert abs(clock_shift_ms(beats)) < 100
        # nor both: the guest's clock and the host's have advanced alike, as exactly as heartbeats show it
        guest, host = (now - then for now, then in zip(hypervisor.clocks(vm), clocks[vm]))
        assert abs(guest - host) < 3
