"""ROC curve of the response prediction."""

from __future__ import annotations

import numpy as np

from server.report.svg import BLUE, GREY, figure, to_svg


def roc_svg(points: tuple[list[float], list[float]], auc: str) -> str:
    """Return the figure; `points` = (false positive rate, true positive rate).

    Counts with privacy noise can fall below zero; for the eye the curve is kept rising and inside
    the square. The AUC is that of the counts as they are.
    """
    x, y = (np.clip(np.maximum.accumulate(axis), 0.0, 1.0) for axis in points)
    with figure(4.2, 4.0) as made:
        axis = made.subplots()
        axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
        axis.plot(x, y, color=BLUE, lw=2)
        axis.set_aspect("equal")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.01)
        axis.set_xlabel("false positive rate")
        axis.set_ylabel("true positive rate")
        axis.set_title("Treatment response, all sites")
        return to_svg(made, name="roc", label=f"ROC curve of response, AUC {auc}")
