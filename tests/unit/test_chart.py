"""Charts as inline SVG: axes, points, whiskers, a level to compare with."""

import math
import re

import pytest

from loopedge.report.svg.axes import Axis, axis_of, scale_of
from loopedge.report.svg.chart import Level, Mark, Series, chart

SERIES = [
    Series(
        name="a <b>",
        colour="op0",
        marks=[Mark(x=1, y=1.0, low=0.9, high=1.1, title="a <b>, 1: 1 ± 0.1"), Mark(x=8, y=2.0)],
    ),
    Series(name="c", colour="op1", marks=[Mark(x=8, y=3.0, low=2.8, high=3.2)]),
]
LOOPS, ERROR = Axis(name="loops", even=True), Axis(name="rmse", from_zero=False)


def page(level: Level | None = None, series: list[Series] = SERIES) -> str:
    return "\n".join(chart(series, across=LOOPS, upward=ERROR, level=level))


def test_an_axis_has_round_ticks_that_hold_the_values() -> None:
    for low, high in ((0.0, 1.0), (0.123, 0.129), (-3.0, 450.0), (5.0, 5.0), (-2e-7, 3e-7)):
        first, last, step = axis_of(low, high)
        assert first <= low <= high <= last
        assert 2 <= round((last - first) / step) <= 12


def test_points_and_whiskers_are_drawn_and_names_escaped() -> None:
    drawn = page()
    assert drawn.count("<circle") == 3
    assert drawn.count("whisker") == 2
    assert "a &lt;b&gt;, 1: 1 ± 0.1" in drawn
    assert ">rmse</text>" in drawn


def test_a_level_is_drawn_where_it_does_not_squeeze_the_values() -> None:
    near, far = page(Level(name="naive", value=2.5)), page(Level(name="naive", value=99.0))
    assert 'class="level" x1' in near
    assert "naive (2.5)" in near
    assert 'class="level" x1' not in far
    assert "naive (99, off the chart)" in far
    assert "100</text>" not in far


def test_series_stand_beside_each_other_on_an_even_axis() -> None:
    places = [float(x) for x in re.findall(r'<circle class="op\d" cx="([\d.]+)"', page())]
    assert places[2] - places[1] == pytest.approx(8.0)  # both at eight loops
    even = scale_of(LOOPS, [1, 4, 64], start=0.0, end=300.0)
    assert [even.place(loops) for loops in (1, 4, 64)] == [50.0, 150.0, 250.0]


def test_a_logarithmic_axis_is_one_where_the_values_span_much() -> None:
    axis = Axis(name="MiB", logarithmic=True)
    far = scale_of(axis, [1.0, 1000.0], start=0.0, end=1.0)
    near = scale_of(axis, [1.0, 7.0], start=0.0, end=1.0)
    assert far.log
    assert not near.log
    middle = far.place(math.sqrt(1000.0))
    assert middle == pytest.approx((far.place(1.0) + far.place(1000.0)) / 2)


def test_without_a_value_the_chart_says_so() -> None:
    said = '<p class="note">No run gave a value.</p>'
    assert page(series=[]) == said
    assert page(series=[Series(name="a", colour="op0", marks=[Mark(x=1, y=math.nan)])]) == said
