"""Colours of all pictures, readable in print and for colour-blind readers."""

from __future__ import annotations

from typing import Any

from client.explain.layers import Layer

INK = "#1b2a3a"
MUTED = "#6b7785"
GRID = "#d9dee4"
ACCENT = "#2f6f9f"
AGAINST = "#2f6f9f"
TOWARDS = "#c4562f"

_ATTENTION = "inferno"
_SIGNED = [AGAINST, "#f7f7f7", TOWARDS]


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
