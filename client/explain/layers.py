"""Layers of an explanation: one number per token of a bag and question, such as attention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from client.explain.attribution import Attribution
from common.study.study import Task

FloatArray = npt.NDArray[np.float64]

_WORDS: dict[Task, tuple[str, str, str]] = {
    "response": ("attribution to response", "against response", "towards response"),
    "survival": ("attribution to risk", "lowers risk", "raises risk"),
}


@dataclass(frozen=True)
class Layer:
    """One number per token.

    Attributes:
        name: What it is, e.g. `attention`; name of the measurement in QuPath.
        values: (T,) attention (>= 0, sums to 1 over the bag), or signed attribution.
        low: What small or negative means.
        high: What large means.
        signed: Whether zero is the middle.
    """

    name: str
    values: FloatArray
    low: str
    high: str
    signed: bool

    def at(self, tokens: npt.NDArray[np.int64]) -> "Layer":
        """Return the layer of some tokens."""
        return replace(self, values=self.values[tokens])

    def shown(self) -> FloatArray:
        """Return (T,) in [0, 1] for a colour map.

        Attention as percentile rank among these tokens; signed values around 0.5, with the
        largest absolute one at 0 or 1.
        """
        if not self.signed:
            return percentile_ranks(self.values)
        largest = float(np.abs(self.values).max(initial=0.0))
        return 0.5 + self.values / (2 * largest) if largest > 0 else np.full(len(self.values), 0.5)


def percentile_ranks(weights: FloatArray) -> FloatArray:
    """Return (T,) ranks in (0, 1]; equal weights share their mean rank.

    Example:
        >>> percentile_ranks(np.array([0.1, 0.7, 0.2, 0.2])).tolist()
        [0.25, 1.0, 0.625, 0.625]
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(weights) / max(len(weights), 1), dtype=np.float64)


def bag_layers(
    feature: str, attention: FloatArray | None, attributions: Sequence[Attribution]
) -> list[Layer]:
    """Return attention, where the model has any, then the attribution of each task.

    Attributions that do not add up (`readable`) are left out.

    Args:
        feature: Feature set.
        attention: (T,) weights, or None for a model without attention.
        attributions: Of this patient, one per task.
    """
    layers = []
    if attention is not None:
        layers.append(Layer("attention", attention, "low", "high", signed=False))
    for attribution in attributions:
        if attribution.readable and feature in attribution.inputs:
            name, low, high = _WORDS[attribution.task]
            layers.append(Layer(name, attribution.tokens(feature), low, high, signed=True))
    return layers
