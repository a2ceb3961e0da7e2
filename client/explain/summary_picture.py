"""Draw one patient's summary: survival curve among the hospital's own, and attributions (PNG)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.explain.attribution import Attribution, contributions
from client.explain.figure import (
    ACCENT,
    AGAINST,
    GRID,
    INK,
    MUTED,
    TOWARDS,
    new_figure,
    save,
    set_title,
)
from client.predict.predict import PatientPrediction
from common.study.study import FeatureSpec

FEWEST_OTHERS = 10
"""With fewer other patients, neither their spread nor a rank among them is shown."""

_WHAT = {"response": "Response (logit)", "survival": "Survival risk"}


def write_summary(
    path: Path,
    prediction: PatientPrediction,
    attributions: Sequence[Attribution],
    features: Mapping[str, FeatureSpec],
    *,
    cohort: Sequence[PatientPrediction],
    title: str,
    synthetic: bool,
) -> None:
    """Write the survival curve and the signed contribution of every modality to each output.

    Args:
        path: Target; written whole or not at all.
        prediction: The patient.
        attributions: Integrated gradients, one per task; unreadable ones are left out.
        features: Feature sets of the study, for their modalities.
        cohort: All predicted patients of the hospital.
        title: Heading.
        synthetic: Whether to stamp the picture.
    """
    readable = [attribution for attribution in attributions if attribution.readable]
    panels = int(bool(prediction.survival)) + len(readable)
    if panels == 0:
        return
    figure = new_figure(3.9 * panels + 0.6, 3.9)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if prediction.survival:
        _survival(axes.pop(0), prediction, cohort)
    for axis, attribution in zip(axes, readable, strict=True):
        _contributions(axis, attribution, features)
    set_title(figure, title, synthetic=synthetic)
    save(figure, path)


def _survival(
    axis: Any, prediction: PatientPrediction, cohort: Sequence[PatientPrediction]
) -> None:
    months = prediction.months
    others = [p.survival for p in cohort if p.patient_id != prediction.patient_id]
    if len(others) >= FEWEST_OTHERS:
        low, middle, high = np.quantile(np.array(others), [0.1, 0.5, 0.9], axis=0)
        axis.fill_between(months, low, high, color=GRID, linewidth=0)
        axis.plot(months, middle, color=MUTED, linewidth=1)
        axis.text(
            months[-1],
            1.0,
            "grey: middle 80% and median\nof this hospital's patients",
            fontsize=6.5,
            color=MUTED,
            ha="right",
            va="top",
        )
    axis.plot(months, prediction.survival, color=ACCENT, linewidth=2.2)
    for month, alive in prediction.at_horizons.items():
        axis.plot([month], [alive], "o", color=ACCENT, markersize=5)
        axis.annotate(
            f"{alive:.0%}",
            (month, alive),
            xytext=(0, -13),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            ha="center",
        )
    axis.set_ylim(0, 1.02)
    axis.set_xlim(0, months[-1] * 1.04)
    axis.set_xticks(_ticks(months[-1]))
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], labels=["0%", "25%", "50%", "75%", "100%"])
    axis.set_xlabel("months", fontsize=8, color=MUTED)
    axis.set_title("Probability to be alive", fontsize=9, color=INK, loc="left")
    _plain(axis)


def _contributions(
    axis: Any, attribution: Attribution, features: Mapping[str, FeatureSpec]
) -> None:
    shares = contributions(attribution, features)
    names = list(shares)[::-1]
    values = [shares[modality] for modality in shares][::-1]
    colours = [TOWARDS if value > 0 else AGAINST for value in values]
    axis.barh(names, values, color=colours, height=0.55)
    axis.axvline(0, color=INK, linewidth=0.8)
    reach = max([abs(value) for value in values] + [1e-9]) * 1.45
    axis.set_xlim(-reach, reach)
    axis.locator_params(axis="x", nbins=5)
    for place, value in enumerate(values):
        side = 1 if value >= 0 else -1
        axis.text(
            value + 0.02 * reach * side,
            place,
            f"{value:+.3f}",
            fontsize=7.5,
            color=INK,
            va="center",
            ha="left" if value >= 0 else "right",
        )
    low, high = ("against", "towards") if attribution.task == "response" else ("lowers", "raises")
    axis.set_xlabel(f"← {low}          {high} →", fontsize=8, color=MUTED)
    axis.set_title(
        f"{_WHAT[attribution.task]}: mean patient {attribution.baseline:+.2f}, "
        f"this patient {attribution.output:+.2f}",
        fontsize=9,
        color=INK,
        loc="left",
    )
    _plain(axis)


def _ticks(last: float) -> list[float]:
    step = 12.0 if last <= 72 else 24.0
    return [step * k for k in range(int(last // step) + 1)]


def _plain(axis: Any) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GRID)
    axis.tick_params(labelsize=8, colors=MUTED, length=0)
