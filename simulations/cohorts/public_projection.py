"""Fit a projection on public cohorts without labels: standardise, then principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import eigh

from common.errors import DataError

FloatArray = npt.NDArray[np.float64]
_CLIP = 5.0
MINIMUM_FILLED = 0.8


@dataclass(frozen=True)
class PublicProjection:
    """x -> components @ clip((x - center) / scale), each component with unit public SD.

    Attributes:
        columns: Names of the d input columns.
        center: (d,) public medians.
        scale: (d,) public standard deviations.
        components: (k, d) rows scaled so that the public projections have SD 1.
    """

    columns: tuple[str, ...]
    center: FloatArray
    scale: FloatArray
    components: FloatArray

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return (n, k) float32 projections; what is missing counts as the public median."""
        values = table.reindex(columns=list(self.columns)).to_numpy(dtype=np.float64)
        z = np.nan_to_num((values - self.center) / self.scale, nan=0.0)
        scores = np.clip(z, -_CLIP, _CLIP) @ self.components.T
        return pd.DataFrame(scores.astype(np.float32), table.index)


def fit_projection(tables: Sequence[pd.DataFrame], components: int) -> PublicProjection:
    """Fit on public tables; columns are those that all tables share and mostly fill.

    Each table is standardised by itself first, so that components describe variation between
    patients and not the differences between cohorts.

    Args:
        tables: Public cohorts, patients by columns.
        components: Number k of principal components.

    Raises:
        DataError: Fewer shared columns than components.
    """
    shared = sorted(set.intersection(*(_well_filled(table) for table in tables)))
    if len(shared) < components:
        raise DataError(
            f"{components} components asked of {len(shared)} shared columns",
            cure="ask for fewer components",
        )
    centers, scales, rows = [], [], []
    for table in tables:
        values = table[shared].to_numpy(dtype=np.float64)
        center = np.nanmedian(values, axis=0)
        scale = np.nanstd(values, axis=0)
        scale[~(scale > 1e-6)] = 1.0
        centers.append(center)
        scales.append(scale)
        z = np.nan_to_num((values - center) / scale, nan=0.0)
        rows.append(np.clip(z, -_CLIP, _CLIP))
    pooled = np.concatenate(rows)
    pooled = pooled - pooled.mean(axis=0)
    largest = [len(shared) - components, len(shared) - 1]
    variances, vectors = eigh(pooled.T @ pooled / len(pooled), subset_by_index=largest)
    axes, spread = vectors.T[::-1], np.sqrt(variances[::-1, None])
    signs = np.sign(axes.sum(axis=1, keepdims=True))
    return PublicProjection(
        columns=tuple(shared),
        center=np.mean(centers, axis=0),
        scale=np.mean(scales, axis=0),
        components=signs * axes / spread,
    )


def _well_filled(table: pd.DataFrame) -> set[str]:
    share = table.notna().mean()
    return {str(column) for column in table.columns[share >= MINIMUM_FILLED]}
