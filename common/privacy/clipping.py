"""Sum per-patient gradients, each clipped in the joint norm of all parameters.

With a clip C every clipped gradient is rounded to a grid of about 2^-36 C before it is added;
clipping leaves room for the rounding. Sums of up to 2^16 patients are then exact in float64:
they do not depend on the order of patients, and one patient more or less moves them by exactly
that patient's clipped gradient, whose norm is at most C. A plain floating-point sum has neither
property.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GRID_BITS = 36
MAX_PATIENTS = 2**16
"""Most patients whose clipped gradients sum exactly."""

_ROUND = 1.5 * 2.0**52
"""x + _ROUND - _ROUND is x rounded to a whole number, for |x| < 2^51; four times as fast."""

_BLOCK = 2**17
"""Numbers worked on at a time. One gradient in float64 beside the sum would push the model out of
the processor's cache; a smaller block costs more in calls than it saves in cache."""

_NARROWEST = 2**10
"""Fewest columns of a block, however many patients are added at once."""


@dataclass(frozen=True)
class GradientSum:
    """What a site knows after one pass over its patients; nothing here is private yet.

    Attributes:
        arrays: Sum of (clipped) per-patient gradients by parameter name, float64.
        n_patients: Patients that were summed, those with a zeroed gradient included.
        n_clipped: Patients whose gradient was longer than the clip.
        n_nonfinite: Patients whose gradient was not finite and counts as zero.
        loss: Mean loss over the patients whose loss is finite; nan if there is none.
    """

    arrays: dict[str, npt.NDArray[np.float64]]
    n_patients: int
    n_clipped: int
    n_nonfinite: int
    loss: float


class ClippedSum:
    """Adds up per-patient gradients.

    Args:
        shapes: Shape of every parameter.
        clip: L2 bound C of one patient's joint gradient; None sums them as they are.
        device: Where the sum is kept.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        clip: float | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._clip = clip
        self._grid = 1.0 if clip is None else grid_of(clip)
        self._shapes = dict(shapes)
        size = sum(math.prod(shape) for shape in shapes.values())
        self._room = 1.0 if clip is None else clip - 0.5 * self._grid * math.sqrt(size)
        self._total = torch.zeros(size, dtype=torch.float64, device=device)
        self._scratch = self._total.new_empty(0)
        self._n_patients = self._n_clipped = self._n_nonfinite = self._n_losses = 0
        self._loss = 0.0

    def add(self, gradients: Tensor, losses: Tensor) -> None:
        """Add M patients; one at a time where none may move a bit of another's.

        Norms of several are added up in blocks whose width follows from M.

        Args:
            gradients: (M, size) over all parameters in the order of their shapes, any floating
                dtype.
            losses: (M,).
        """
        parts = [torch.linalg.vector_norm(rows, dim=1) for rows, _ in self._blocks(gradients)]
        norms = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        finite = torch.isfinite(norms) & torch.isfinite(losses)
        norms = torch.where(finite, norms, 0.0)
        self._add_clipped(gradients, norms, finite)
        if self._clip is not None:
            self._n_clipped += int((norms > self._clip).sum())
        finite_losses = losses[torch.isfinite(losses)]
        self._loss += math.fsum(finite_losses.tolist())
        self._n_losses += len(finite_losses)
        self._n_patients += len(losses)
        self._n_nonfinite += int((~finite).sum())

    def _blocks(self, gradients: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield some columns of the gradients in float64, good until the next, and of the sum."""
        width = max(_BLOCK // max(len(gradients), 1), _NARROWEST)
        if self._scratch.numel() != len(gradients) * width:
            self._scratch = self._total.new_empty(len(gradients) * width)
        blocks = zip(
            torch.split(gradients, width, dim=1), torch.split(self._total, width), strict=True
        )
        for rows, total in blocks:
            yield self._scratch[: rows.numel()].view(rows.shape).copy_(rows), total

    def _add_clipped(self, gradients: Tensor, norms: Tensor, finite: Tensor) -> None:
        factor = (self._room / norms.clamp(min=self._room) / self._grid).unsqueeze(1)
        all_finite = bool(finite.all())
        for rows, total in self._blocks(gradients):
            if not all_finite:
                rows.masked_fill_(~finite.unsqueeze(1), 0.0)
            if self._clip is not None:
                rows.mul_(factor).add_(_ROUND).sub_(_ROUND)
            total += rows[0] if len(rows) == 1 else rows.sum(0)

    def result(self) -> GradientSum:
        """Return the sum so far."""
        total = (self._total * self._grid).cpu().numpy()
        arrays, start = {}, 0
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            arrays[name] = total[start:stop].reshape(shape)
            start = stop
        return GradientSum(
            arrays=arrays,
            n_patients=self._n_patients,
            n_clipped=self._n_clipped,
            n_nonfinite=self._n_nonfinite,
            loss=self._loss / self._n_losses if self._n_losses else math.nan,
        )


def grid_of(clip: float) -> float:
    """Return the grid of clipped gradients: the power of two in (2^-37 C, 2^-36 C]."""
    return float(2.0 ** (math.floor(math.log2(clip)) - GRID_BITS))
