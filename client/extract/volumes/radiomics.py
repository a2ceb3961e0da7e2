"""Extract PyRadiomics' features of the tumour, one token per sequence.

A token is the feature vector of one sequence followed by a one-hot of which sequence it is, so
that a patient who lacks a sequence has one token less and nothing is filled in. With the
default parameter files a vector has 107 features (first order 18, shape 14, GLCM 24, GLRLM 16,
GLSZM 16, NGTDM 5, GLDM 14; van Griethuysen et al., 2017).
"""

import json
import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from client.extract.kinds.extractor import InputNames, Kept, fingerprint_of
from client.extract.volumes.sequence_volumes import (
    RadiologyExtractor,
    RadiologyParams,
    Sequence,
    SequenceSettings,
    fingerprint_params,
    load_sequences,
    load_settings,
    sequence_names,
)
from client.extract.volumes.volume import sitk
from client.extract.volumes.volume_preprocess import correct_and_scale, resample_around
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import canonical_json
from common.errors import ConfigError, ErrorCode, ExtractionError
from common.optional import require
from common.study.study import FeatureSpec

CODE_VERSION = 1


class RadiomicsParams(RadiologyParams):
    """Parameters of the radiomics extractor."""

    transform: Literal["none", "signed_log"] = Field(
        default="none",
        description="signed_log: sign(x) log(1 + |x|), since features span twelve decades",
    )


class RadiomicsExtractor(RadiologyExtractor[RadiomicsParams]):
    """Feature set of kind `radiomics`: (sequences present, features + sequences).

    Args:
        feature_name: Key in `Study.features`.
        spec: Its specification; `dim` must be features + sequences, `max_tokens` at least the
            number of sequences.

    Raises:
        ConfigError: Parameters are wrong, `dim` or `max_tokens` do not fit, or the extra
            `radiology` is not installed.
    """

    kind: ClassVar[str] = "radiomics"
    params_class = RadiomicsParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        self._settings = load_settings(self.params)
        self._names = _vector_names(self._settings)
        n_sequences = len(self.params.sequences)
        width = len(self._names) + n_sequences
        if spec.dim != width or spec.max_tokens < n_sequences:
            raise ConfigError(
                f"dim {spec.dim} and max_tokens {spec.max_tokens} do not fit this extractor",
                where=self.where,
                why=f"it makes up to {n_sequences} tokens of {width - n_sequences} features and "
                f"{n_sequences} sequence flags",
                cure=f"write dim: {width} and max_tokens: {n_sequences}",
            )
        self.fingerprint = fingerprint_of(
            self.kind,
            fingerprint_params(
                self.params,
                {name: s.model_dump(mode="json") for name, s in self._settings.items()},
                leave_out=set(),
            ),
            code_version=CODE_VERSION,
        )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name every token by its sequence, every column by its feature."""
        names = sequence_names(spec)
        flags = file.features[kept, -len(names) :]
        return InputNames(
            tokens=[names[int(place)] for place in flags.argmax(axis=1)],
            columns=feature_names(spec.extractor.params if spec.extractor else {}),
        )

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return one token per sequence present, (S, features + sequences) float32.

        Raises:
            ExtractionError: A volume or mask is unusable, or a feature is not finite.
        """
        tokens: list[npt.NDArray[np.float32]] = []
        attrs: dict[str, str | int | float] = {}
        for sequence in load_sequences(row, self.params):
            tokens.append(self._token(sequence))
            attrs[f"volume_ml_{sequence.name}"] = sequence.mask.volume_ml
            attrs[f"roi_{sequence.name}"] = sequence.mask.roi
        return FeatureFile(np.stack(tokens), attrs=attrs)

    def _token(self, sequence: Sequence) -> npt.NDArray[np.float32]:
        settings = self._settings[sequence.name]
        volume = correct_and_scale(sequence.volume, settings.preprocess)
        image, mask = volume.image, sequence.mask.image
        if settings.preprocess.spacing_mm is not None:
            image, mask = resample_around(volume, sequence.mask, settings.preprocess.spacing_mm)
        where = f"sequence '{sequence.name}', {sequence.volume.source}"
        features = radiomic_features(image, mask, settings.pyradiomics, where=where)
        values = np.array([features[name] for name in self._names])
        if self.params.transform == "signed_log":
            values = np.sign(values) * np.log1p(np.abs(values))
        flags = np.zeros(len(self.params.sequences))
        flags[sequence.index] = 1.0
        return np.concatenate([values, flags]).astype(np.float32)


def feature_names(params: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of a token: features, then `sequence_<name>` flags.

    Args:
        params: `extractor.params` of a radiomics feature set.

    Raises:
        ConfigError: Parameters are wrong, or sequences do not share one list of features.
    """
    settings = RadiomicsParams.from_mapping(dict(params), where="extractor.params")
    names = _vector_names(load_settings(settings))
    return [*names, *(f"sequence_{name}" for name in settings.sequences)]


def radiomic_features(
    image: Any, mask: Any, parameters: Mapping[str, Any], *, where: str = ""
) -> dict[str, float]:
    """Return PyRadiomics' features of one region, by name, all finite.

    Args:
        image: SimpleITK image.
        mask: SimpleITK image on the same grid, 1 inside.
        parameters: A PyRadiomics parameter file as a mapping: setting, imageType, featureClass.
        where: Source, for messages.

    Raises:
        ExtractionError: PyRadiomics refuses the region, or a value is not finite.
    """
    extractor = _pyradiomics(canonical_json(dict(parameters)))
    try:
        output = extractor.execute(image, mask)
    except (ValueError, RuntimeError, IndexError) as error:
        raise ExtractionError(
            "PyRadiomics refuses the region",
            where=where,
            why=" ".join(str(error).split()),
            cure="a region needs several voxels in at least two dimensions: check the mask",
        ) from error
    values = {str(k): float(v) for k, v in output.items() if not str(k).startswith("diagnostics_")}
    bad = sorted(name for name, value in values.items() if not math.isfinite(value))
    if bad:
        raise ExtractionError(
            f"{len(bad)} radiomics features are not finite: {', '.join(bad[:4])}",
            where=where,
            why="the region is too small or too uniform for them",
            cure="check the mask; leave this sequence out of the manifest if it is that small",
            code=ErrorCode.FEATURE_NOT_FINITE,
        )
    return values


@lru_cache(maxsize=16)
def _pyradiomics(parameters: str) -> Any:
    """Return the feature extractor for a parameter mapping in canonical JSON."""
    library = require("radiomics.featureextractor", extra="radiology")
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    data = json.loads(parameters)
    data.setdefault("setting", {}).setdefault("additionalInfo", False)
    schema_errors = require("pykwalify.errors", extra="radiology").PyKwalifyException
    try:
        return library.RadiomicsFeatureExtractor(data)
    except schema_errors as error:
        raise ConfigError(
            "PyRadiomics refuses its parameters",
            where="parameter file of the radiomics extractor",
            why=" ".join(str(error.msg).split()),
            cure="compare with PyRadiomics' documentation of parameter files",
        ) from error


@lru_cache(maxsize=16)
def _names_for(parameters: str) -> tuple[str, ...]:
    """Return the features a parameter mapping gives, in PyRadiomics' order, from a phantom."""
    noise = np.random.default_rng(0).integers(0, 300, (16, 16, 16)).astype(np.float32)
    region = np.zeros((16, 16, 16), dtype=np.uint8)
    region[4:12, 4:12, 4:12] = 1
    image, mask = sitk().GetImageFromArray(noise), sitk().GetImageFromArray(region)
    features = _pyradiomics(parameters).execute(image, mask)
    return tuple(str(name) for name in features if not str(name).startswith("diagnostics_"))


def _vector_names(settings: Mapping[str, SequenceSettings]) -> tuple[str, ...]:
    lists = {name: _names_for(canonical_json(s.pyradiomics)) for name, s in settings.items()}
    first = next(iter(lists.values()))
    if any(names != first for names in lists.values()):
        raise ConfigError(
            "the sequences do not share one list of features",
            where="extractor.params.settings",
            why=", ".join(f"{name}: {len(names)}" for name, names in lists.items()),
            cure="use parameter files with the same imageType and featureClass",
        )
    return first
