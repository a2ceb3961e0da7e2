"""Embed 2.5-D pictures of the tumour with a frozen image encoder."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from client.extract.encoders.encoder_registry import encoder_entry
from client.extract.encoders.tile_encoder import TileEncoder, encoder_digest, load_encoder
from client.extract.kinds.extractor import InputNames, Kept, fingerprint_of
from client.extract.volumes.sequence_volumes import (
    RadiologyExtractor,
    RadiologyParams,
    Sequence,
    fingerprint_params,
    load_sequences,
    load_settings,
    sequence_names,
)
from client.extract.volumes.tumour_slices import SliceChoice, TumourSlices, cut_slices
from client.extract.volumes.volume_preprocess import correct_and_scale
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.errors import ConfigError
from common.study.study import FeatureSpec

CODE_VERSION = 1


class SlicesParams(RadiologyParams):
    """Parameters of the slice extractor."""

    encoder: str = Field(default="efficientnet_lite0", description="key in the encoder registry")
    sha256: str | None = Field(default=None, description="digest of the encoder's weights")
    weights: str | None = Field(default=None, description="file of the weights at a hospital")
    size_px: int | None = Field(default=None, gt=0, description="side; null = encoder's input")
    choice: SliceChoice = SliceChoice()


class SlicesExtractor(RadiologyExtractor[SlicesParams]):
    """Feature set of kind `slices`: one token per slice, sequence after sequence.

    Coordinates are (slice number, position of the sequence in `params.sequences`).

    Args:
        feature_name: Key in `Study.features`.
        spec: Its specification; `dim` must be the encoder's.

    Raises:
        ConfigError: Parameters, encoder or weights are wrong, or an extra is not installed.
    """

    kind: ClassVar[str] = "slices"
    params_class = SlicesParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        self._settings = load_settings(self.params)
        self._check(spec)
        self._weights = {"sha256": self.params.sha256, "weights": self.params.weights}
        self.fingerprint = fingerprint_of(
            self.kind,
            fingerprint_params(
                self.params,
                {
                    name: s.preprocess.model_dump(mode="json", exclude={"spacing_mm"})
                    for name, s in self._settings.items()
                },
                leave_out={"sha256", "weights", "size_px"},
            )
            | {"size_px": self._size_px},
            code_version=CODE_VERSION,
            weights={self.params.encoder: encoder_digest(self.params.encoder, self._weights)},
        )

    def _check(self, spec: FeatureSpec) -> None:
        entry = encoder_entry(self.params.encoder)
        if entry.dim != spec.dim:
            raise ConfigError(
                f"the encoder gives {entry.dim} features per slice, the study says {spec.dim}",
                where=f"features.{self.feature_name}.dim",
                cure=f"set dim: {entry.dim}",
            )
        endless = [name for name, s in self._settings.items() if s.preprocess.limits is None]
        if endless:
            raise ConfigError(
                f"no intensity limits for {', '.join(endless)}",
                where=f"features.{self.feature_name}.extractor.params.preprocess.intensity",
                why="a picture needs to know which intensities are black and white",
                cure="use zscore or window",
            )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name every slice by its sequence and number."""
        if file.coords is None:
            return InputNames()
        names = sequence_names(spec)
        return InputNames(
            tokens=[f"{names[int(place)]} slice {int(k)}" for k, place in file.coords[kept]]
        )

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return one token per slice, (S, dim) float32.

        Raises:
            ExtractionError: A volume or mask is unusable, or the patient has no sequence.
        """
        pictures: list[npt.NDArray[np.uint8]] = []
        places: list[npt.NDArray[np.int64]] = []
        attrs: dict[str, str | int | float] = {
            "encoder": self.params.encoder,
            "encoder_sha256": self._encoder.sha256,
            "coords_meaning": "slice number along slice_axis (LPS), position of the sequence",
        }
        for sequence, cut in self._cut(row):
            pictures.append(cut.images)
            order = np.full_like(cut.indices, sequence.index)
            places.append(np.stack([cut.indices, order], axis=1))
            attrs[f"slice_axis_{sequence.name}"] = ("axial", "coronal", "sagittal")[cut.axis]
        features = self._encoder.encode(np.concatenate(pictures))
        return FeatureFile(features, np.concatenate(places), attrs)

    def images(self, row: PatientRow) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Return the pictures the encoder sees, (S, P, P, 3) uint8, and a name for each.

        Raises:
            ExtractionError: As `extract`.
        """
        pictures: list[npt.NDArray[np.uint8]] = []
        names: list[str] = []
        for sequence, cut in self._cut(row):
            pictures.append(cut.images)
            names += [f"{sequence.name} slice {int(k)}" for k in cut.indices]
        return np.concatenate(pictures), names

    def _cut(self, row: PatientRow) -> Iterator[tuple[Sequence, TumourSlices]]:
        for sequence in load_sequences(row, self.params):
            settings = self._settings[sequence.name].preprocess
            volume = correct_and_scale(sequence.volume, settings)
            yield (
                sequence,
                cut_slices(
                    volume,
                    sequence.mask,
                    self.params.choice,
                    limits=settings.limits or (0.0, 1.0),
                    size_px=self._size_px,
                ),
            )

    @property
    def _size_px(self) -> int:
        return self.params.size_px or encoder_entry(self.params.encoder).input_px

    @cached_property
    def _encoder(self) -> TileEncoder:
        return load_encoder(self.params.encoder, self._weights)
