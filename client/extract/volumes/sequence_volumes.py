"""Read a patient's sequences with their masks, alike for every radiology extractor."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, JsonValue, field_validator

from client.extract.kinds.extractor import Extractor
from client.extract.volumes.volume import Mask, Volume, make_mask, resample_mask
from client.extract.volumes.volume_preprocess import Preprocessing
from client.extract.volumes.volume_reader import mask_series, read_mask, read_volume
from common.cohort.manifest import PatientRow
from common.contract import Contract, read_yaml_mapping
from common.errors import ConfigError, ErrorCode, ExtractionError, TumorboardError
from common.study.study import FeatureSpec

_FOLDER = Path(__file__).with_name("params")


class RadiologyParams(Contract):
    """Parameters of every radiology extractor."""

    sequences: list[str] = Field(min_length=1, description="in this order, e.g. [t1, t2, t1c]")
    settings: dict[str, str] = Field(
        default_factory=dict,
        description="sequence -> parameter file: mr, ct or a path; default ct for sequences "
        "named ct..., else mr",
    )
    preprocess: dict[str, JsonValue] = Field(
        default_factory=dict, description="replaces keys of the files' `preprocess`"
    )
    roi: str | None = Field(default=None, description="RTSTRUCT region or SEG segment, see docs")
    label: int | None = Field(default=None, gt=0, description="value in label maps; null = any")
    shared_mask: str | None = Field(
        default=None,
        description="sequence whose mask serves those without one of their own; only for "
        "sequences that are registered to each other",
    )
    max_outside_fraction: float = Field(
        default=0.05, ge=0, le=1, description="share of contours that may leave the volume"
    )

    @field_validator("sequences")
    @classmethod
    def _unique(cls, sequences: list[str]) -> list[str]:
        if len(set(sequences)) != len(sequences):
            raise ValueError("a sequence is named twice")
        return sequences


Params = TypeVar("Params", bound=RadiologyParams)


class SequenceSettings(Contract):
    """A parameter file: preprocessing, and PyRadiomics' own parameters."""

    preprocess: Preprocessing = Preprocessing()
    pyradiomics: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Sequence:
    """One sequence of one patient.

    Attributes:
        name: Sequence, e.g. `t1c`.
        index: Its position in `params.sequences`.
        volume: The image as read.
        mask: The tumour on its grid.
    """

    name: str
    index: int
    volume: Volume
    mask: Mask


def load_settings(params: RadiologyParams) -> dict[str, SequenceSettings]:
    """Return the settings of each sequence, overrides applied.

    Raises:
        ConfigError: A file is missing or wrong, or a key is unknown.
    """
    unknown = sorted(set(params.settings) - set(params.sequences))
    if unknown:
        raise ConfigError(
            f"settings for sequences that are not used: {', '.join(unknown)}",
            where="extractor.params.settings",
            cure=f"use only: {', '.join(params.sequences)}",
        )
    return {name: _settings_of(name, params) for name in params.sequences}


def _settings_of(sequence: str, params: RadiologyParams) -> SequenceSettings:
    default = "ct" if sequence.lower().startswith("ct") else "mr"
    name = params.settings.get(sequence, default)
    built_in = _FOLDER / f"{name}.yaml"
    path = built_in if built_in.is_file() else Path(name)
    data = read_yaml_mapping(path)
    data["preprocess"] = {**dict(data.get("preprocess") or {}), **params.preprocess}
    return SequenceSettings.from_mapping(data, where=str(path))


def fingerprint_params(
    params: RadiologyParams, settings: Mapping[str, object], *, leave_out: set[str]
) -> dict[str, object]:
    """Return parameters with the content of their files instead of names and paths.

    Args:
        params: Parameters of the extractor.
        settings: Sequence -> what of its parameter file the features depend on, plain values.
        leave_out: Keys of `params` that do not matter or stand elsewhere.
    """
    values = params.model_dump(mode="json", exclude={"settings", "preprocess", *leave_out})
    return values | {"settings": dict(settings)}


def sequence_names(spec: FeatureSpec) -> list[str]:
    """Return the sequences that a feature set's parameters name, in order."""
    names = spec.extractor.params.get("sequences", []) if spec.extractor else []
    return [str(name) for name in names] if isinstance(names, list) else []


class RadiologyExtractor(Extractor[Params]):
    """Base of the radiology extractors: reads volumes and masks of the sequences used."""

    def inputs(self, row: PatientRow) -> list[Path]:
        """Return volumes and masks of the sequences used; empty = no radiology."""
        used = [name for name in self.params.sequences if name in row.volumes]
        paths = [row.volumes[name] for name in used]
        paths += [row.masks[name] for name in used if name in row.masks]
        place = self.params.shared_mask
        if used and place is not None and place not in used:
            paths += [table[place] for table in (row.volumes, row.masks) if place in table]
        return list(dict.fromkeys(paths))

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return which file is which sequence; empty if there is none."""
        if not self.inputs(row):
            return {}
        return {
            "volumes": [name for name in self.params.sequences if name in row.volumes],
            "masks": [name for name in self.params.sequences if name in row.masks],
        }


def load_sequences(row: PatientRow, params: RadiologyParams) -> Iterator[Sequence]:
    """Yield the patient's sequences in the order of `params.sequences`, with their masks.

    Raises:
        ExtractionError: A file is unreadable, a volume has no mask, a mask does not fit, or the
            patient has none of the sequences.
    """
    if not any(name in row.volumes for name in params.sequences):
        raise ExtractionError(
            "the patient has none of the sequences",
            where=f"patient {row.patient_id}",
            why=f"the study uses {', '.join(params.sequences)}",
            cure="fill the volume_ columns of the manifest, or leave radiology out",
        )
    for index, name in enumerate(params.sequences):
        if name not in row.volumes:
            continue
        try:
            volume, mask = _load(row, name, params)
        except ExtractionError as error:
            raise _at_sequence(error, name) from error
        yield Sequence(name, index, volume, mask)


def _load(row: PatientRow, name: str, params: RadiologyParams) -> tuple[Volume, Mask]:
    if name in row.masks:
        return _load_pair(row, name, params)
    shared = params.shared_mask
    if shared is None or shared not in row.masks or shared not in row.volumes:
        raise ExtractionError(
            f"sequence '{name}' has no mask",
            where=str(row.volumes[name]),
            why="features are computed within the tumour",
            cure=f"fill the column mask_{name}, or name the sequence whose mask serves all in "
            "extractor.params.shared_mask (and give this patient that mask)",
        )
    own = read_volume(row.volumes[name])
    other, mask = _load_pair(row, shared, params)
    array = resample_mask(mask.image, own.image)
    if not array.any():
        raise ExtractionError(
            f"the mask of '{shared}' does not meet the volume of '{name}'",
            where=f"{mask.source} against {own.source}",
            why="the two sequences do not share one patient space",
            cure="register them, or draw a mask on this sequence",
            code=ErrorCode.IMAGE_MASK_MISMATCH,
        )
    return own, make_mask(array, own, other.source, roi=mask.roi)


def _load_pair(row: PatientRow, name: str, params: RadiologyParams) -> tuple[Volume, Mask]:
    volume_path, mask_path = row.volumes[name], row.masks[name]
    volume = read_volume(volume_path, series_uids=mask_series(mask_path))
    mask = read_mask(
        mask_path,
        volume,
        roi=params.roi,
        label=params.label,
        max_outside=params.max_outside_fraction,
    )
    return volume, mask


def _at_sequence(error: TumorboardError, name: str) -> ExtractionError:
    where = f"sequence '{name}', {error.where}" if error.where else f"sequence '{name}'"
    return ExtractionError(error.what, where=where, why=error.why, cure=error.cure, code=error.code)
