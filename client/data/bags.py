"""Prepare bags of tokens for the model: publicly scaled, subsampled, kept in memory.

Scaling constants are public (in the study), so scaling costs no privacy. Subsampling of long
bags is seeded by patient, so a patient looks the same in every round and after a restart.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.cohort.features_h5 import read_features
from common.errors import ConfigError, ErrorCode, FeatureError
from common.study.study import FeatureSpec, PublicScaling

Bag = npt.NDArray[np.float32] | Path
"""Raw features (T, D), or the file they are in."""


def scale(features: npt.NDArray[np.float32], scaling: PublicScaling) -> npt.NDArray[np.float32]:
    """Return clip((x - center) / scale, ±clip) with rows rescaled to norm <= row_norm.

    Args:
        features: (T, D) raw values.
        scaling: Public constants; lists hold one number per column.
    """
    center = np.asarray(scaling.center, dtype=np.float64)
    spread = np.asarray(scaling.scale, dtype=np.float64)
    scaled = (features.astype(np.float64) - center) / spread
    if scaling.clip is not None:
        scaled = np.clip(scaled, -scaling.clip, scaling.clip)
    if scaling.row_norm is not None:
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        scaled *= np.minimum(1.0, scaling.row_norm / np.maximum(norms, np.finfo(np.float64).tiny))
    return scaled.astype(np.float32)


def check_scaling(name: str, spec: FeatureSpec) -> None:
    """Refuse scaling constants that do not fit the feature set.

    Raises:
        ConfigError: A list has another length than `dim`, or a scale is zero.
    """
    for key, value in (("center", spec.scaling.center), ("scale", spec.scaling.scale)):
        if isinstance(value, list) and len(value) != spec.dim:
            raise ConfigError(
                f"{len(value)} scaling constants for {spec.dim} columns",
                where=f"features.{name}.scaling.{key}",
                cure="give one number for all columns, or one per column",
            )
    if not np.all(np.asarray(spec.scaling.scale, dtype=np.float64) > 0):
        raise ConfigError(
            "a scale is zero or negative",
            where=f"features.{name}.scaling.scale",
            cure="give a column that does not vary the scale 1",
        )


def token_sample(
    feature: str, patient_id: str, n_tokens: int, max_tokens: int
) -> npt.NDArray[np.int64]:
    """Return which tokens of a bag the model sees, in their order in the file.

    A uniform draw without replacement, fixed by the patient and feature set: the smallest
    `max_tokens` of one random 64-bit key per token.

    Example:
        >>> token_sample("tiles", "p1", 3, 8)
        array([0, 1, 2])
    """
    if n_tokens <= max_tokens:
        return np.arange(n_tokens)
    seed = hashlib.sha256(f"{feature}\x00{patient_id}".encode()).digest()
    keys = np.random.PCG64(int.from_bytes(seed, "big")).random_raw(n_tokens)
    return np.sort(np.argsort(keys, kind="stable")[:max_tokens])


class BagStore:
    """Bags of one feature set by patient; each is read once and then kept, scaled, as float32."""

    def __init__(self, name: str, spec: FeatureSpec, bags: dict[str, Bag]) -> None:
        check_scaling(name, spec)
        self.name, self.spec = name, spec
        self._bags = bags
        self._ready: dict[str, Tensor] = {}

    def __contains__(self, patient_id: str) -> bool:
        """Return whether the patient has this feature set."""
        return patient_id in self._ready or patient_id in self._bags

    def get(self, patient_id: str) -> Tensor:
        """Return the scaled bag (T, D) float32 of a patient who has one.

        Raises:
            FeatureError: The file is damaged, not finite, or of another shape.
        """
        if patient_id not in self._ready:
            raw = self._bags[patient_id]
            where = str(raw) if isinstance(raw, Path) else f"patient {patient_id}"
            values = read_features(raw).features if isinstance(raw, Path) else raw
            check_shape(self.name, self.spec, values.shape, where)
            indices = token_sample(self.name, patient_id, len(values), self.spec.max_tokens)
            self._ready[patient_id] = torch.from_numpy(scale(values[indices], self.spec.scaling))
            del self._bags[patient_id]
        return self._ready[patient_id]


def check_shape(name: str, spec: FeatureSpec, shape: tuple[int, ...], where: str) -> None:
    """Refuse a bag that does not fit the study.

    Raises:
        FeatureError: Not (T, dim), or ordered tokens (`flatten`, `row_mean`) in wrong number.
    """
    if len(shape) != 2 or shape[0] < 1 or shape[1] != spec.dim:
        raise FeatureError(
            f"feature set '{name}' has shape {shape}",
            where=where,
            why=f"the study says (tokens, {spec.dim})",
            cure="extract with the study's extractor, or correct `dim` before freezing the study",
        )
    too_many = spec.pool == "flatten" and shape[0] > spec.max_tokens
    unequal = spec.pool == "row_mean" and shape[0] != spec.max_tokens
    if too_many or unequal:
        raise FeatureError(
            f"feature set '{name}' has {shape[0]} tokens",
            where=where,
            why=f"its tokens stand in a public order of {spec.max_tokens} (pool '{spec.pool}')",
            cure="extract with the study's extractor, or correct `max_tokens`",
        )


def check_finite(values: npt.NDArray[np.float32], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        FeatureError: With code FEATURE_NOT_FINITE.
    """
    if not np.isfinite(values).all():
        raise FeatureError(
            "a feature value is NaN, infinite or too large",
            where=where,
            why="one such value would destroy the model of every hospital",
            cure="mark the modality as absent, or impute before",
            code=ErrorCode.FEATURE_NOT_FINITE,
        )
