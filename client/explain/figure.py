"""Save Matplotlib figures without a display, whole or not at all, in colours that all share.

Colours are readable in print and for colour-blind readers.
"""

from pathlib import Path
from typing import Any

from client.explain.layers import Layer
from common.storage.atomic_file import whole_or_nothing

INK = "#1b2a3a"
MUTED = "#6b7785"
GRID = "#d9dee4"
ACCENT = "#2f6f9f"
AGAINST = "#2f6f9f"
TOWARDS = "#c4562f"

_ATTENTION = "inferno"
_SIGNED = [AGAINST, "#f7f7f7", TOWARDS]

DPI = 130
STAMP = "SYNTHETIC DATA, no real person"
FOOT = (
    "Research software for decision support, not a medical device. Attention and attribution "
    "describe the model, not the disease."
)


def new_figure(width_in: float, height_in: float) -> Any:
    """Return an empty figure of this size in inches, laid out without overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    foot = 0.3 / height_in
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, rect=(0, foot, 1, 1 - foot))
    figure = Figure(figsize=(width_in, height_in), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def set_title(figure: Any, title: str, *, synthetic: bool) -> None:
    """Set heading, footnote and, for synthetic data, the stamp."""
    heading = f"{title}    ({STAMP})" if synthetic else title
    figure.suptitle(heading, x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold")
    figure.text(0.01, 0.08 / figure.get_figheight(), FOOT, fontsize=6.5, color=MUTED, va="bottom")


def save(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all; equal figures give equal bytes."""
    with whole_or_nothing(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})


def colour_map(layer: Layer) -> Any:
    """Return the matplotlib colour map of a layer: sequential, or diverging if signed."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if layer.signed:
        return LinearSegmentedColormap.from_list("against_towards", _SIGNED)
    return colormaps[_ATTENTION]


def colours_of(layer: Layer) -> list[list[int]]:
    """Return the colour of each token as [red, green, blue], 0 to 255."""
    rgba = colour_map(layer)(layer.shown())
    return [[round(255 * float(channel)) for channel in row[:3]] for row in rgba]
