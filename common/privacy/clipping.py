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
        self._total = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in shapes.items()
        }
        self._n_patients = self._n_clipped = self._n_nonfinite = self._n_losses = 0
        self._loss = 0.0

    def add(self, gradients: dict[str, Tensor], losses: Tensor) -> None:
        """Add M patients.

        Args:
            gradients: Per parameter (M, *shape), any floating dtype.
            losses: (M,).
        """
        finite, clipped, factor = self._factors(gradients, losses)
        for name, total in self._total.items():
            scaled = gradients[name].to(torch.float64)
            rows = factor.reshape(-1, *[1] * total.dim())
            scaled = scaled * rows
            if self._clip is not None:
                scaled = scaled.trunc_()
            if not bool(finite.all()):
                keep = finite.reshape(rows.shape)
                scaled = torch.where(keep, scaled, 0.0)
            total += scaled[0] if len(scaled) == 1 else scaled.sum(0)
        seen = torch.isfinite(losses)
        self._loss += math.fsum(losses[seen].tolist())
        self._n_losses += int(seen.sum())
        self._n_patients += len(losses)
        self._n_clipped += int((clipped & finite).sum())
        self._n_nonfinite += int((~finite).sum())

    def result(self) -> GradientSum:
        """Return the sum so far."""
        return GradientSum(
            arrays={name: (t * self._grid).cpu().numpy() for name, t in self._total.items()},
            n_patients=self._n_patients,
            n_clipped=self._n_clipped,
            n_nonfinite=self._n_nonfinite,
            loss=self._loss / self._n_losses if self._n_losses else math.nan,
        )

    def _factors(
        self, gradients: dict[str, Tensor], losses: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        squares = torch.zeros(len(losses), dtype=torch.float64, device=losses.device)
        for gradient in gradients.values():
            flat = gradient.reshape(len(gradient), -1)
            squares = squares + torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64) ** 2
        norms = squares.sqrt()
        finite = torch.isfinite(norms) & torch.isfinite(losses)
        if self._clip is None:
            return finite, torch.zeros_like(finite), torch.ones_like(norms)
        clipped = norms > self._clip
        factor = self._clip / norms.clamp(min=self._clip)
        return finite, clipped, factor / self._grid


def grid_of(clip: float) -> float:
    """Return the grid of clipped gradients: the power of two in (2^-37 C, 2^-36 C]."""
    return float(2.0 ** (math.floor(math.log2(clip)) - GRID_BITS))


def joint_norm(arrays: dict[str, npt.NDArray[Any]]) -> float:
    """Return the L2 norm over all arrays together, in float64."""
    return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays.values()))
