"""Sum of per-patient gradients, each clipped in the joint norm of all parameters.

With a clip C every clipped gradient is cut towards zero to a grid of 2^-36 C before it is
added. Sums of up to 2^16 patients are then exact in float64: they do not depend on the order of
patients, and one patient more or less moves them by exactly that patient's clipped gradient,
whose norm is at most C. A plain floating-point sum has neither property.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GRID_BITS = 36
MAX_PATIENTS = 2**16
"""Most patients whose clipped gradients sum exactly."""


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
        self._total = torch.zeros(size, dtype=torch.float64, device=device)
        self._n_patients = self._n_clipped = self._n_nonfinite = self._n_losses = 0
        self._loss = 0.0

    def add(self, gradients: dict[str, Tensor], losses: Tensor) -> None:
        """Add M patients.

        Args:
            gradients: Per parameter (M, *shape), any floating dtype.
            losses: (M,).
        """
        rows = [gradients[name].reshape(len(losses), -1) for name in self._shapes]
        flat = torch.cat(rows, dim=1).to(torch.float64)
        norms = torch.linalg.vector_norm(flat, dim=1)
        finite = torch.isfinite(norms) & torch.isfinite(losses)
        if not bool(finite.all()):
            flat = torch.where(finite.unsqueeze(1), flat, 0.0)
            norms = torch.where(finite, norms, 0.0)
        if self._clip is not None:
            factor = self._clip / norms.clamp(min=self._clip) / self._grid
            flat = flat.mul_(factor.unsqueeze(1)).trunc_()
            self._n_clipped += int((norms > self._clip).sum())
        self._total += flat[0] if len(flat) == 1 else flat.sum(0)
        seen = losses[torch.isfinite(losses)]
        self._loss += math.fsum(seen.tolist())
        self._n_losses += len(seen)
        self._n_patients += len(losses)
        self._n_nonfinite += int((~finite).sum())

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


def joint_norm(arrays: dict[str, npt.NDArray[Any]]) -> float:
    """Return the L2 norm over all arrays together, in float64."""
    return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays.values()))
