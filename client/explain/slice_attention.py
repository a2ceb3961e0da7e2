"""Attention over the slices of a scan, drawn on the slices themselves (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.atomic_file import whole_or_nothing

COLUMNS = 5


def write_slices(
    path: Path,
    slices: npt.NDArray[np.uint8],
    labels: Sequence[str],
    weights: npt.NDArray[np.float64],
    *,
    title: str,
) -> None:
    """Write the slices that the model read, each with its attention as a bar and a number.

    Args:
        path: Target; written whole or not at all.
        slices: (S, H, W, 3) images as the encoder saw them.
        labels: S names, e.g. "t1c slice 14".
        weights: (S,) attention, summing to 1.
        title: Heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(slices) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.7 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, COLUMNS, squeeze=False)).ravel()
    for axis in axes:
        axis.set_axis_off()
    highest = max(float(weights.max()), 1e-9)
    for axis, image, label, weight in zip(axes, slices, labels, weights, strict=False):
        axis.imshow(image)
        axis.set_title(f"{label}\nattention {weight:.2f}", fontsize=8)
        axis.axhline(image.shape[0] - 2, 0, float(weight) / highest, color="#ffb000", linewidth=5)
    figure.suptitle(title)
    with whole_or_nothing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
