"""Draw line charts as inline SVG, in the colours of the page's light or dark style.

A screen reader hears one sentence that sums the curve up; the figure around it holds the title.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 12.0, 34.0
TICKS = 4
Place = Callable[[float, float], tuple[float, float]]
MAX_POINTS = 400
"""More rounds than this are thinned; the last one always stays."""


@dataclass(frozen=True)
class Chart:
    """One curve over rounds.

    Attributes:
        name: Short name, for programs.
        title: What is drawn.
        unit: Of the vertical axis.
        points: (round, value), rounds rising; values finite.
        last_round: Right end of the horizontal axis.
        floor: Lower end of the vertical axis; None fits the values.
    """

    name: str
    title: str
    unit: str
    points: tuple[tuple[int, float], ...]
    last_round: int
    floor: float | None = 0.0

    @property
    def summary(self) -> str:
        """The curve in one sentence."""
        if not self.points:
            return "No round yet."
        unit = f" {self.unit}" if self.unit else ""
        (first, start), (last, end) = self.points[0], self.points[-1]
        if first == last:
            return f"{end:.3g}{unit} in round {last}."
        values = [value for _, value in self.points]
        return (
            f"{start:.3g} in round {first}, {end:.3g} in round {last}; "
            f"lowest {min(values):.3g}, highest {max(values):.3g}{unit}."
        )

    def svg(self) -> Markup:
        """Return the chart as an `<svg>` element."""
        if not self.points:
            return Markup("")
        points = thinned(self.points)
        low, high, step = axis([value for _, value in points], self.floor)
        across = max(self.last_round, points[-1][0], 2) - 1

        def place(number: float, value: float) -> tuple[float, float]:
            x = LEFT + (number - 1) / across * (WIDTH - LEFT - RIGHT)
            y = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
            return round(x, 1), round(y, 1)

        parts = _vertical_axis(low, high, step, place) + _horizontal_axis(across + 1, place)
        line = " ".join("{},{}".format(*place(*point)) for point in points)
        x, y = place(*points[-1])
        parts.append(f'<polyline class="curve" points="{line}"/>')
        parts.append(f'<circle class="end" cx="{x}" cy="{y}" r="3.5"/>')
        head = (
            f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="{escape(self.summary)}">'
        )
        return Markup(head + "".join(parts) + "</svg>")


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most `MAX_POINTS` points, evenly chosen, with the last one."""
    every = math.ceil(len(points) / MAX_POINTS)
    selection = list(points[::every]) if every else []
    return selection if not selection or selection[-1] == points[-1] else [*selection, points[-1]]


SMALLEST = 1e-300
"""Shortest axis; below, floating point has no round numbers."""


def axis(values: Sequence[float], floor: float | None) -> tuple[float, float, float]:
    """Return (lower end, upper end, step) of an axis whose ticks are round numbers.

    Example:
        >>> axis([0.3, 4.1], 0.0)
        (0.0, 6.0, 2.0)
    """
    low = min(values) if floor is None else min(floor, *values)
    high = max(values)
    span = max((high - low) or abs(high) or 1.0, SMALLEST)
    rough = span / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    start = math.floor(low / step + 1e-9) * step
    end = math.ceil(high / step - 1e-9) * step
    return start, end if end > start else start + step, step


def _vertical_axis(low: float, high: float, step: float, place: Place) -> list[str]:
    parts = []
    for k in range(round((high - low) / step) + 1):
        value = low + k * step
        y = place(1, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_tick(value)}</text>')
    return parts


def _horizontal_axis(last: int, place: Place) -> list[str]:
    baseline = HEIGHT - BOTTOM
    parts = []
    for number in sorted({1, math.ceil(last / 2), last}):
        x = place(number, 0)[0]
        parts.append(f'<text x="{x}" y="{baseline + 16}" text-anchor="middle">{number}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">round</text>')
    return parts


def _tick(value: float) -> str:
    text = f"{value:.3g}"
    return "0" if float(text) == 0 else text
