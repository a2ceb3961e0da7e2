"""Both ways hold their bounds, and the contributor's guide shows them as they are."""

import re
from pathlib import Path

import pytest

from simulations.benchmarks.structure.way import Trace, way_of
from simulations.benchmarks.structure.ways import MOST_MODULES, checkpoint_way, patient_way

PAGE = Path(__file__).parents[4] / "deploy" / "handbook" / "contributing.md"


def chains():
    """The lists of modules in the section on the two ways."""
    section = PAGE.read_text().split("## The two ways\n")[1].split("\n## ")[0]
    return [
        re.findall(r"^\d+\. `([\w.]+)` ", part, re.MULTILINE)
        for part in section.split("\nA patient, ")
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["checkpoint", "patient"])
def test_the_guide_shows_the_way_as_it_is(index):
    way = (checkpoint_way, patient_way)[index]()
    assert chains()[index] == way.modules
    assert len(way.modules) <= MOST_MODULES
    assert way.turns == []


MODULES = {
    "server.first": "def start(x, second, third):\n    second.take(x, third)\n",
    "server.second": "def take(x, third):\n    third.give(x)\ndef again(x):\n    return x\n",
    "server.third": "import sys\ndef give(x):\n    return BACK(x)\n",
}


class Parcel:
    pass


def test_a_call_against_the_order_is_a_turn_back():
    spaces = {name: {"__name__": name} for name in MODULES}
    for name, text in MODULES.items():
        exec(text, spaces[name])
    second, third = (type("M", (), {}) for _ in range(2))
    second.take, third.give = spaces["server.second"]["take"], spaces["server.third"]["give"]
    for back, turns in (
        (spaces["server.second"]["again"], [("server.third", "server.second")]),
        (lambda x: x, []),
    ):
        spaces["server.third"]["BACK"] = back
        with Trace() as trace:
            spaces["server.first"]["start"](Parcel(), second, third)
        way = way_of(trace.entries, lambda value: isinstance(value, Parcel))
        assert way.modules == ["server.first", "server.second", "server.third"]
        assert way.turns == turns
