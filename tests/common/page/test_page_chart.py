"""Curves: axes of round numbers that hold every value, and the last round always drawn."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.page.chart import BOTTOM, HEIGHT, LEFT, MAX_POINTS, RIGHT, TOP, WIDTH, Chart, axis

values = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=50)


@given(values, st.sampled_from([None, 0.0]))
def test_axis_holds_all_values_with_few_round_ticks(found, floor):
    low, high, step = axis(found, floor)
    slack = 1e-6 * max(abs(low), abs(high), step)
    assert low - slack <= min(found)
    assert max(found) <= high + slack
    assert 1 <= round((high - low) / step) <= 6
    assert re.match(r"^[125]e", f"{step:.0e}")


@given(values)
def test_every_point_lies_inside_the_frame(found):
    points = tuple((i + 1, v) for i, v in enumerate(found))
    svg = ElementTree.fromstring(str(Chart("c", "Loss", "", points, len(points)).svg()))
    line = svg.find("{*}polyline") if svg.find("polyline") is None else svg.find("polyline")
    drawn = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(drawn) == len(points)
    assert all(LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 for x, _ in drawn)
    assert all(TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1 for _, y in drawn)


def test_a_higher_value_is_drawn_higher():
    svg = str(Chart("c", "Loss", "", ((1, 5.0), (2, 1.0)), 2).svg())
    (_, first), (_, second) = [
        tuple(map(float, pair.split(",")))
        for pair in re.search(r'points="([^"]+)"', svg)[1].split()
    ]
    assert first < second


def test_many_rounds_are_thinned_and_the_last_stays():
    points = tuple((i, math.sin(i)) for i in range(1, 5001))
    svg = str(Chart("c", "Loss", "", points, 5000).svg())
    drawn = re.search(r'points="([^"]+)"', svg)[1].split()
    assert len(drawn) <= MAX_POINTS + 1
    assert drawn[-1].startswith(f"{WIDTH - RIGHT:g}")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((), "No round yet"),
        (((3, 0.5),), "0.5 s in round 3"),
        (((1, 4.0), (2, 1.0), (3, 2.0)), "4 in round 1, 2 in round 3; lowest 1, highest 4 s"),
    ],
)
def test_summary_says_the_curve(points, said):
    assert said in Chart("c", "Time", "s", points, 3).summary


def test_units_are_escaped():
    svg = str(Chart("c", "Loss", "<b>&", ((1, 1.0),), 1).svg())
    assert "<b>" not in svg
    assert "&lt;b&gt;&amp;" in svg
