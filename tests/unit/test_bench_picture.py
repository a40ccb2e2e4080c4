# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture and the table that documents show of a report."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import document
import picture

SVG = "{http://www.w3.org/2000/svg}"
PHASES = {"stop": 10, "save": 30, "convert": 40, "translations": 10, "irqchip": 5, "resume": 5}


def report(**details: Any) -> dict[str, Any]:
    def entry(name: str, ratio: float) -> dict[str, Any]:
        return {"name": name, "a": 1, "b": 1, "unit": "us", "ratio_median": ratio, "ratio_min": ratio / 2, "ratio_max": ratio * 2, "runs": 5}

    return {"comparisons": [entry("pause_vs_ram", 1.0), entry("memory_overhead", 1.3)], "details": details}


def drawn(**details: Any) -> ET.Element:
    return ET.fromstring(picture.draw(report(**details)))


def texts(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def test_each_ratio_has_a_row_in_the_colour_of_its_verdict() -> None:
    svg = drawn()
    assert {"pause_vs_ram", "1 (<= 1.1)", "memory_overhead", "1.3 (<= 1.15)"} <= set(texts(svg))
    assert [dot.get("fill") for dot in svg.iter(f"{SVG}circle")] == [picture.MET["yes"], picture.MET["no"]]


def test_places_follow_the_logarithm() -> None:
    """The whisker reaches as far to the left of the dot as to the right: half and twice."""
    svg = drawn()
    dots = [float(dot.attrib["cx"]) for dot in svg.iter(f"{SVG}circle")]
    whiskers = [line for line in svg.iter(f"{SVG}line") if line.get("stroke-width") == "3"]
    for dot, whisker in zip(dots, whiskers):
        assert (float(whisker.attrib["x1"]) + float(whisker.attrib["x2"])) / 2 == pytest.approx(dot, abs=0.1)
    assert picture.LEFT <= min(dots) < max(dots) <= picture.WIDTH - picture.RIGHT


def test_phases_fill_a_bar_each_way() -> None:
    svg = drawn(pauses={"phases_us": {"kvm_tcg": PHASES, "tcg_kvm": PHASES | {"stop": 1000}}})
    widths = [float(box.attrib["width"]) for box in svg.iter(f"{SVG}rect") if box.get("height") == f"{picture.BAR:.1f}"]
    whole = picture.WIDTH - picture.LEFT - picture.MARGIN
    assert sum(widths[:6]) == pytest.approx(whole, abs=0.5)
    assert sum(widths[6:]) == pytest.approx(whole, abs=0.5)
    assert {"40%", "kvm to tcg", "tcg to kvm", "translations"} <= set(texts(svg))


def test_shares_of_nothing() -> None:
    with pytest.raises(ValueError, match="phases that took no time have no shares"):
        picture.shares({"stop": 0})


def test_report_without_comparisons() -> None:
    with pytest.raises(ValueError, match="has no picture"):
        picture.draw({"comparisons": []})


DETAILS: dict[str, Any] = {
    "pauses": {
        "phases_us": {"kvm_tcg": PHASES, "tcg_kvm": {"stop": 50, "convert": 150}},
        "floor_us": {"kvm_tcg": {"KVM_GET_REGS": 3, "KVM_GET_MSRS": 2}, "tcg_kvm": {"KVM_SET_REGS": 20}},
        "beside_floor_us": {
            "floor_after_a_sleep_kvm_tcg": 8, "floor_after_a_sleep_tcg_kvm": 30, "drain_interrupts": 4, "handoff_to_a_thread": 10,
        },
    },
    "memory": {"resident_mib": {"before_tcg": 100.5, "in_tcg": 120, "back_in_kvm": 120, "translations": 15, "given_back": 0}},
}  # fmt: skip
PLACES = "".join(f"<!-- bench {name}: make bench-docs -->\nold\n<!-- end of bench {name} -->\n" for name in ("table", "pause", "memory"))


def test_tables_take_their_places() -> None:
    new = document.with_tables(f"before\n{PLACES}after\n", report(**DETAILS))
    assert "\nold\n" not in new
    lines = new.splitlines()
    assert "| `pause_vs_ram` | 1 | 0.5 to 2 | 5 | <= 1.1 | yes |" in lines
    assert "| phase `save` | 30.0% |  |" in lines
    assert "| all ioctls of the floor, one after another | 5.0% | 10.0% |" in lines
    assert "| in tcg, after work | 120 |" in lines
    assert (lines[0], lines[-1]) == ("before", "after")
    assert document.with_tables(new, report(**DETAILS)) == new


@pytest.mark.parametrize(("text", "message"), [("nothing\n", "0 places for the table"), (PLACES * 2, "2 places for the table")])
def test_no_single_place_for_a_table(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        document.with_tables(text, report(**DETAILS))


def test_what_a_report_lacks() -> None:
    assert "warm_late_vs_tcg" in document.missing(report())
    assert "pause_vs_ram" not in document.missing(report())
