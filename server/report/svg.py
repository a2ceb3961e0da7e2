"""Style figures and write them as inline SVG with real text and no external files."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 5.4
"""Inches: at the width of a phone text of 10 pt is still 9 pixels high."""

INK, GREY, GRID = "#1f2933", "#6b7680", "#e3e8ee"
BLUE, ORANGE, GREEN, PURPLE = "#1b6ca8", "#c8501e", "#2a7f4f", "#6f4a8e"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
}


def new_axes(width: float, height: float, heights: tuple[float, ...] = (1,)) -> list[Axes]:
    """Return axes under each other, of these relative heights, in a new pyplot figure."""
    from matplotlib import pyplot  # slow, and chooses a backend

    with mpl.rc_context(_STYLE):
        figure = pyplot.figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)
    return list(grid[:, 0])


def to_svg(
    draw: Callable[[Figure], object], size: tuple[float, float], *, name: str, label: str
) -> str:
    """Return a drawing as an `<svg>` element that scales with the page.

    Args:
        draw: Draws into an empty figure.
        size: Width and height in inches.
        name: Unique on the page; makes identifiers unique and the bytes repeatable.
        label: What a screen reader says.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    safe_label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = re.compile(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>')
    svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    # A function, for in a template a backslash of the label would be an instruction.
    attributes = f'role="img" aria-label="{safe_label}"'
    return head.sub(lambda found: f'{svg} viewBox="{found[1]}" {attributes}>', text, count=1)
