"""Encode RNA as pathway tokens: per gene set, its genes' scaled expression in public order."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from client.extract.genomics.pathway_params import (
    PathwayParams,
    all_genes,
    check_spec,
    gene_sets_digest,
    load_sets,
    public_scaling,
)
from client.extract.genomics.rna_table import RnaTable, rna_table
from client.extract.kinds.extractor import Extractor, InputNames, Kept, fingerprint_of
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import sha256_hex
from common.errors import ExtractionError
from common.study.study import FeatureSpec

_CODE_VERSION = 1

_POSSIBLE = {"log2_tpm": (-20.0, 40.0), "zscore": (-1e6, 1e6)}


class PathwayExtractor(Extractor[PathwayParams]):
    """Tokens (P, dim): row p holds the genes of set p, padded with zeros on the right.

    A gene is scaled by public constants: `gene_stats` if given; else z-scores are kept and
    log2(TPM + 0.001) is mapped linearly from its range [-9.97, 16.7] to [-1, 1]. Genes that a
    table lacks are 0, the public mean; a table that lacks too many is refused.

    Args:
        feature_name: Key in `Study.features`.
        spec: dim = genes of the largest set, max_tokens = number of sets.

    Raises:
        ConfigError: Parameters are wrong, or do not fit `dim`, `max_tokens` or `names`.
    """

    kind: ClassVar[str] = "pathways"
    params_class = PathwayParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        self.sets = load_sets(self.params, where=f"{self.where}.extractor.params")
        check_spec(spec, self.sets, self.where)
        self.genes = tuple(all_genes(self.sets))
        self.sets_sha256 = gene_sets_digest(self.sets)
        self._dim = spec.dim
        self._mean, self._sd, stats_digest = public_scaling(self.params, self.genes, self.where)
        position = {gene: index for index, gene in enumerate(self.genes)}
        self._index = [np.array([position[g] for g in genes]) for genes in self.sets.values()]
        self.clip = self.params.clip or (3.0 if self.params.input_scale == "zscore" else 5.0)
        settings = {"input_scale", "min_coverage", "min_pathway_coverage"}
        self.fingerprint = fingerprint_of(
            self.kind,
            self.params.model_dump(mode="json", include=settings) | {"clip": self.clip},
            code_version=_CODE_VERSION,
            weights={"gene_sets": self.sets_sha256, "gene_stats": stats_digest},
        )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name every token by its gene set."""
        params, where = dict(spec.extractor.params) if spec.extractor else {}, "extractor.params"
        names = spec.names or [
            *load_sets(PathwayParams.from_mapping(params, where=where), where=where)
        ]
        return InputNames(tokens=[names[k] for k in kept])

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return the digest of the patient's expression, or nothing if there is none.

        The table is shared: the rest of it may grow without this patient being extracted again.
        """
        if row.rna is None:
            return {}
        try:
            table = rna_table(row.rna, self.genes)
        except ExtractionError as error:
            return {"unreadable": error.why}  # `extract` then tells the whole story
        if row.patient_id not in table:
            return {}
        expression = self._expression(table, row.patient_id)
        return {"expression_sha256": sha256_hex(expression.astype("<f8").tobytes())}

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the pathway tokens of a patient.

        Raises:
            ExtractionError: The table is unreadable or lacks the patient, covers too few
                genes, or holds values that cannot be of the declared scale.
        """
        if row.rna is None:
            raise ExtractionError("the manifest names no RNA table", where=row.patient_id)
        table = rna_table(row.rna, self.genes)
        if row.patient_id not in table:
            raise ExtractionError(
                "the RNA table has no row of this patient",
                where=f"{row.rna}, patient '{row.patient_id}'",
                cure="add the row, or empty the cell `rna` in the manifest",
            )
        expression = self._expression(table, row.patient_id)
        has_value = np.isfinite(expression)
        where = f"{row.rna}, patient '{row.patient_id}'"
        lowest = self._check_coverage(has_value, where)
        self._check_scale(expression[has_value], where)
        scaled = np.clip((expression - self._mean) / self._sd, -self.clip, self.clip)
        tokens = np.zeros((len(self.sets), self._dim), dtype=np.float32)
        for token, index in zip(tokens, self._index, strict=True):
            token[: len(index)] = np.where(has_value, scaled, 0.0)[index]
        return FeatureFile(
            tokens,
            None,
            {
                "gene_sets_sha256": self.sets_sha256,
                "input_scale": self.params.input_scale,
                "n_genes": int(has_value.sum()),
                "coverage": float(has_value.mean()),
                "lowest_pathway_coverage": lowest,
            },
        )

    def _expression(self, table: RnaTable, patient_id: str) -> npt.NDArray[np.float64]:
        """Return (G,) raw values in the order of `genes`; NaN where the table has none."""
        value_of = dict(zip(table.genes, table.values(patient_id), strict=True))
        return np.array([value_of.get(gene, np.nan) for gene in self.genes])

    def _check_coverage(self, has_value: npt.NDArray[np.bool_], where: str) -> float:
        """Return the lowest coverage of a set, or refuse."""
        shares = {
            name: float(has_value[index].mean())
            for name, index in zip(self.sets, self._index, strict=True)
        }
        floor = self.params.min_pathway_coverage
        poor = [f"{name} {share:.2f}" for name, share in shares.items() if share < floor]
        if has_value.mean() < self.params.min_coverage or poor:
            missing = [g for g, has in zip(self.genes, has_value, strict=True) if not has]
            raise ExtractionError(
                f"too few genes: {int(has_value.sum())} of {len(has_value)}",
                where=where,
                why=f"coverage {has_value.mean():.2f}, floor {self.params.min_coverage}; "
                + (f"sets below {floor}: {', '.join(poor[:5])}; " if poor else "")
                + f"missing e.g. {', '.join(missing[:5])}",
                cure="name genes by the symbols of the gene sets, or agree on sets all cover",
            )
        return min(shares.values())

    def _check_scale(self, values: npt.NDArray[np.float64], where: str) -> None:
        low, high = _POSSIBLE[self.params.input_scale]
        looks_raw = self.params.input_scale == "zscore" and np.median(np.abs(values)) > 5.0
        if values.min() < low or values.max() > high or looks_raw:
            raise ExtractionError(
                f"the values cannot be {self.params.input_scale}",
                where=where,
                why=f"they run from {values.min():.4g} to {values.max():.4g}",
                cure="give log2(TPM + 0.001) or z-scores, as the study's input_scale says",
            )
