"""Encode clinical columns as one vector with public scaling and a flag per missing value."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from client.extract.kinds.extractor import Extractor, InputNames, Kept, fingerprint_of
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import Contract
from common.errors import ConfigError, ExtractionError
from common.study.study import FeatureSpec

_CODE_VERSION = 1

Value = str | float | None


class Numeric(Contract):
    """A number: clip((x - center) / scale, ±clip), then a flag; (0, 1) where missing."""

    kind: Literal["numeric"] = "numeric"
    name: str
    center: float = Field(default=0.0, description="public, e.g. the mean age of a public cohort")
    scale: float = Field(default=1.0, gt=0, description="public, e.g. its standard deviation")
    clip: float = Field(default=3.0, gt=0)
    low: float | None = Field(default=None, description="smaller is refused as impossible")
    high: float | None = Field(default=None, description="larger is refused as impossible")


class Categorical(Contract):
    """One of some categories: one-hot, then a flag; all zero and flag 1 where missing."""

    kind: Literal["categorical"]
    name: str
    categories: list[str] = Field(min_length=1)
    aliases: dict[str, str] = Field(default_factory=dict, description="other spellings -> category")
    missing: list[str] = Field(
        default_factory=list, description="words that mean not known, e.g. 'not reported'"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_levels(self.categories, self.aliases)
        return self


class Ordinal(Contract):
    """One of some ordered levels: -1 for the first to 1 for the last, then a flag."""

    kind: Literal["ordinal"]
    name: str
    levels: list[str] = Field(min_length=2, description="from lowest to highest, e.g. stages")
    aliases: dict[str, str] = Field(default_factory=dict, description="other spellings -> level")
    missing: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_levels(self.levels, self.aliases)
        return self


Variable = Annotated[Numeric | Categorical | Ordinal, Field(discriminator="kind")]


class ClinicalTableParams(Contract):
    """Parameters of the extractor kind `clinical_table`."""

    variables: list[Variable] = Field(min_length=1, description="in the order of the columns")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [variable.name for variable in self.variables]
        if len(set(names)) != len(names):
            raise ValueError("each variable may stand once")
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the vector, in order."""
        return [column for variable in self.variables for column in _columns(variable)]


class ClinicalTableExtractor(Extractor[ClinicalTableParams]):
    """One token (1, dim) a patient from the manifest's `clinical_*` columns.

    Args:
        feature_name: Key in `Study.features`.
        spec: dim = columns of the declared variables; see `ClinicalTableParams.columns`.

    Raises:
        ConfigError: Parameters are wrong, or do not fit `dim` or `names`.
    """

    kind: ClassVar[str] = "clinical_table"
    params_class = ClinicalTableParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        columns = self.params.columns
        if spec.dim != len(columns) or (spec.names is not None and spec.names != columns):
            raise ConfigError(
                "dim or names do not fit the declared variables",
                where=self.where,
                why=f"the variables make {len(columns)} columns: {', '.join(columns)}",
                cure=f"set dim: {len(columns)}, and names to these or to nothing",
            )
        self.fingerprint = fingerprint_of(
            self.kind, self.params.model_dump(mode="json"), code_version=_CODE_VERSION
        )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name the columns by variable and level."""
        params = dict(spec.extractor.params) if spec.extractor else {}
        settings = ClinicalTableParams.from_mapping(params, where="extractor.params")
        return InputNames(columns=settings.columns)

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return the known declared variables; empty if the patient has none."""
        cells = {v.name: row.clinical.get(v.name) for v in self.params.variables}
        return {name: value for name, value in cells.items() if value is not None}

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the vector of a patient.

        Raises:
            ExtractionError: A category is unknown, or a number is text or impossible.
        """
        parts: list[float] = []
        for variable in self.params.variables:
            parts += _encode(variable, row.clinical.get(variable.name), row.patient_id)
        features = np.array([parts], dtype=np.float32)
        return FeatureFile(features)


def _columns(variable: Variable) -> list[str]:
    if isinstance(variable, Categorical):
        columns = [f"{variable.name}={category}" for category in variable.categories]
    else:
        columns = [variable.name]
    return [*columns, f"{variable.name}?missing"]


def _encode(variable: Variable, value: Value, patient_id: str) -> list[float]:
    if isinstance(variable, Numeric):
        if value is None:
            return [0.0, 1.0]
        number = _number(variable, value, patient_id)
        scaled = (number - variable.center) / variable.scale
        return [float(np.clip(scaled, -variable.clip, variable.clip)), 0.0]
    levels = variable.categories if isinstance(variable, Categorical) else variable.levels
    level = _level(variable, levels, value, patient_id)
    if isinstance(variable, Categorical):
        return [float(level == category) for category in levels] + [float(level is None)]
    if level is None:
        return [0.0, 1.0]
    return [2.0 * levels.index(level) / (len(levels) - 1) - 1.0, 0.0]


def _number(variable: Numeric, value: str | float, patient_id: str) -> float:
    low, high = variable.low, variable.high
    if isinstance(value, str):
        why, cure = "it is not a number", "correct the cell, or leave it empty if not known"
    elif (low is not None and value < low) or (high is not None and value > high):
        why, cure = f"possible values run from {low} to {high}", "check the unit"
    else:
        return value
    raise _refused(variable.name, value, patient_id, why, cure)


def _level(
    variable: Categorical | Ordinal, levels: Sequence[str], value: Value, patient_id: str
) -> str | None:
    if value is None:
        return None
    text = plain_text(value)
    if text in variable.missing:
        return None
    level = variable.aliases.get(text, text)
    if level not in levels:
        raise _refused(
            variable.name,
            text,
            patient_id,
            f"the study knows {', '.join(repr(name) for name in levels)}",
            "use one of these, leave the cell empty, or agree on an alias in the study",
        )
    return level


def plain_text(value: str | float) -> str:
    """Return a value as the study writes it: whole numbers without a decimal point.

    Example:
        >>> plain_text(2.0), plain_text(2.5), plain_text("T2a")
        ('2', '2.5', 'T2a')
    """
    if isinstance(value, str):
        return value
    return str(int(value)) if value.is_integer() else repr(value)


def _check_levels(levels: Sequence[str], aliases: Mapping[str, str]) -> None:
    if len(set(levels)) != len(levels):
        raise ValueError("each category may stand once")
    wrong = [f"{alias} -> {level}" for alias, level in aliases.items() if level not in levels]
    if wrong:
        raise ValueError(f"aliases lead to unknown categories: {', '.join(wrong)}")


def _refused(name: str, value: Value, patient_id: str, why: str, cure: str) -> ExtractionError:
    return ExtractionError(
        f"clinical variable '{name}' has the impossible value '{value}'",
        where=f"patient {patient_id}, column 'clinical_{name}'",
        why=why,
        cure=cure,
    )
