"""Encode clinical columns as sentences, one token each, through a sentence encoder.

One template per variable (more paraphrases did not help in the published ablation of SurvPGC). A
variable that is not known gives no token; no blank is ever put into a sentence.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from client.extract.clinical.clinical_table import plain_text
from client.extract.clinical.sentence_encoder import Backend, sentence_encoder
from client.extract.kinds.extractor import Extractor, InputNames, Kept, fingerprint_of
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import Contract
from common.errors import ConfigError, ExtractionError
from common.study.study import FeatureSpec

_CODE_VERSION = 1

SLOT = "{value}"


class Template(Contract):
    """How one clinical variable is said."""

    variable: str
    sentence: str = Field(description="a sentence with {value} in it, once")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sentence.count(SLOT) != 1:
            raise ValueError(f"the sentence needs {SLOT} exactly once")
        return self


TEMPLATES = (
    Template(variable="age", sentence="The patient is {value} years old."),
    Template(variable="sex", sentence="The patient is {value}."),
    Template(variable="stage", sentence="The tumor is at stage {value}."),
    Template(variable="grade", sentence="The histologic grade of the tumor is {value}."),
    Template(variable="subtype", sentence="The histologic subtype of the tumor is {value}."),
)
"""Default sentences; a study may declare its own."""

UNKNOWN = ("not reported", "unknown", "not available")


class ClinicalTextParams(Contract):
    """Parameters of the extractor kind `clinical_text`."""

    templates: list[Template] = Field(
        default=list(TEMPLATES), min_length=1, description="in the order of the tokens"
    )
    words: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="variable -> cell -> word to say, e.g. M -> male"
    )
    unknown: list[str] = Field(
        default=list(UNKNOWN), description="words, in lower case, that mean not known"
    )
    backend: Backend = Field(
        default="minilm", description="minilm, or hashed n-grams where its weights are absent"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.variables)) != len(self.variables):
            raise ValueError("each variable may have one template")
        extra = [name for name in self.words if name not in self.variables]
        if extra:
            raise ValueError(f"words for variables without a template: {', '.join(extra)}")
        return self

    @property
    def variables(self) -> list[str]:
        """Clinical variables in the order of the tokens."""
        return [template.variable for template in self.templates]


class ClinicalTextExtractor(Extractor[ClinicalTextParams]):
    """Tokens (n_c, dim), one for each known variable, in the order of the templates.

    Args:
        feature_name: Key in `Study.features`.
        spec: dim = 384 for MiniLM; max_tokens >= number of templates.

    Raises:
        ConfigError: Parameters are wrong, or the encoder's library is not installed.
    """

    kind: ClassVar[str] = "clinical_text"
    params_class = ClinicalTextParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        if spec.max_tokens < len(self.params.templates):
            raise ConfigError(
                f"{len(self.params.templates)} sentences for max_tokens {spec.max_tokens}",
                where=f"{self.where}.max_tokens",
                why="sentences would be left out at random",
                cure=f"set max_tokens: {len(self.params.templates)}",
            )
        self._encoder = sentence_encoder(self.params.backend, spec.dim, where=f"{self.where}.dim")
        self.fingerprint = fingerprint_of(
            self.kind,
            self.params.model_dump(mode="json") | {"dim": spec.dim},
            code_version=_CODE_VERSION,
            weights=self._encoder.digests,
        )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name every token by the variable its sentence is about."""
        names = str(file.attrs.get("token_names", "")).split(";")
        return InputNames([names[k] for k in kept] if len(names) == len(file.features) else None)

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return the known variables as they are said; empty if the patient has none."""
        return dict(self._known(row))

    def sentences(self, row: PatientRow) -> dict[str, str]:
        """Return variable -> sentence for each known variable, in token order."""
        words = self._known(row)
        return {
            template.variable: template.sentence.replace(SLOT, words[template.variable])
            for template in self.params.templates
            if template.variable in words
        }

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the sentence embeddings of a patient.

        Raises:
            ExtractionError: No variable is known.
        """
        sentences = self.sentences(row)
        if not sentences:
            raise ExtractionError(
                "no clinical variable of the study is known",
                where=f"patient {row.patient_id}",
                why=f"the templates need {', '.join(self.params.variables)}",
                cure="fill one of these clinical columns, or leave the patient without them",
            )
        features = np.stack([self._encoder.encode(text) for text in sentences.values()])
        attrs: dict[str, str | int | float] = {
            "backend": self.params.backend,
            "token_names": ";".join(sentences),
        }
        return FeatureFile(features, None, attrs)

    def _known(self, row: PatientRow) -> dict[str, str]:
        words = {}
        for name in self.params.variables:
            value = row.clinical.get(name)
            text = "" if value is None else plain_text(value).strip()
            if text and text.lower() not in self.params.unknown:
                words[name] = self.params.words.get(name, {}).get(text, text)
        return words
