"""Declare the parameters of pathway tokens: gene sets, scale of the input, public constants.

Gene sets are named lists of genes in a public order, from GMT or column-wise CSV. The order of
the sets and of the genes in each is part of the model's meaning; the digest fixes both.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ConfigError
from common.study.study import FeatureSpec

GeneSets = dict[str, list[str]]
"""Set name -> gene symbols, both in public order."""


def read_gene_sets(path: Path) -> GeneSets:
    """Return the gene sets of a file.

    GMT: one set per line, tab-separated: name, description, genes. CSV: one set per column, name in
    the header, genes below, ragged. A gene named twice in a set counts once.

    Args:
        path: File ending in `.gmt` or `.csv`.

    Raises:
        ConfigError: The file is missing, of another kind, or a set is empty or named twice.
    """
    try:
        if path.suffix.lower() == ".gmt":
            sets = _read_gmt(path)
        elif path.suffix.lower() == ".csv":
            sets = _read_csv(path)
        else:
            raise _refused(path, f"the ending is '{path.suffix}'", "use .gmt or .csv")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(path, " ".join(str(error).split()), "check the path") from error
    return clean_gene_sets(sets, where=str(path))


def clean_gene_sets(gene_sets: Sequence[tuple[str, Sequence[str]]], *, where: str) -> GeneSets:
    """Return gene sets without blanks and repeats, order kept.

    Raises:
        ConfigError: There is no set, or one is empty or named twice.
    """
    sets: GeneSets = {}
    for raw_name, raw_genes in gene_sets:
        name = raw_name.strip()
        genes = list(dict.fromkeys(gene.strip() for gene in raw_genes if gene.strip()))
        if not name or not genes or name in sets:
            problem = "occurs twice" if name in sets else "has no gene" if name else "has no name"
            raise _refused(where, f"gene set '{name}' {problem}", "correct the gene sets")
        sets[name] = genes
    if not sets:
        raise _refused(where, "there is no gene set", "name at least one")
    return sets


def gene_sets_digest(sets: Mapping[str, Sequence[str]]) -> str:
    """Return the SHA-256 of the sets with both orders, whatever file they came in."""
    return sha256_hex(canonical_json([[name, list(genes)] for name, genes in sets.items()]))


def all_genes(sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Return every gene once, in order of first appearance."""
    return list(dict.fromkeys(gene for genes in sets.values() for gene in genes))


def _read_gmt(path: Path) -> list[tuple[str, Sequence[str]]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    fields = [line.split("\t") for line in lines if line.strip()]
    return [(cells[0], cells[2:]) for cells in fields]


def _read_csv(path: Path) -> list[tuple[str, Sequence[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    header = rows[0] if rows else []
    return [
        (name, [row[index] for row in rows[1:] if index < len(row)])
        for index, name in enumerate(header)
    ]


def _refused(where: Path | str, why: str, cure: str) -> ConfigError:
    return ConfigError("the gene sets cannot be used", where=str(where), why=why, cure=cure)


LOG2_TPM_RANGE = (-9.97, 16.7)
"""Floor and published maximum of log2(TPM + 0.001)."""


class GeneSet(Contract):
    """One gene set in the study itself."""

    name: str
    genes: list[str] = Field(min_length=1)


class PathwayParams(Contract):
    """Parameters of the extractor kind `pathways`."""

    sets: list[GeneSet] | None = Field(default=None, description="gene sets, in order")
    gene_sets: str | None = Field(default=None, description="or the GMT or CSV file of them")
    gene_sets_sha256: str | None = Field(
        default=None, description="digest of the sets (`gene_sets_digest`), checked if given"
    )
    pathways: list[str] | None = Field(
        default=None, description="which sets, in this order; all by default"
    )
    input_scale: Literal["log2_tpm", "zscore"] = Field(
        description="unit of the hospital's table: log2(TPM + 0.001), or z-scores per gene"
    )
    gene_stats: str | None = Field(
        default=None, description="CSV gene,mean,sd of a public cohort, in the unit of the table"
    )
    gene_scaling: dict[str, tuple[float, float]] | None = Field(
        default=None, description="or gene -> (mean, sd) of a public cohort, in the study itself"
    )
    clip: float | None = Field(
        default=None, gt=0, description="bound after scaling; 3 for z-scores, else 5"
    )
    min_coverage: float = Field(
        default=0.9, gt=0, le=1, description="least share of all genes a table must hold"
    )
    min_pathway_coverage: float = Field(
        default=0.5, ge=0, le=1, description="least share of the genes of each set"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.sets is None) == (self.gene_sets is None):
            raise ValueError("give either `sets` (in the study) or `gene_sets` (a file)")
        if self.gene_stats is not None and self.gene_scaling is not None:
            raise ValueError("give either `gene_stats` (a file) or `gene_scaling` (in the study)")
        return self


def load_sets(params: PathwayParams, *, where: str) -> GeneSets:
    """Return the gene sets of the parameters, in the study's order.

    Raises:
        ConfigError: The sets are unusable, not those of the digest, or lack a named one.
    """
    if params.gene_sets is not None:
        sets = read_gene_sets(Path(params.gene_sets))
    else:
        gene_sets = [(each.name, each.genes) for each in params.sets or []]
        sets = clean_gene_sets(gene_sets, where=f"{where}.sets")
    if params.pathways is not None:
        unknown = [name for name in params.pathways if name not in sets]
        if unknown or len(set(params.pathways)) != len(params.pathways):
            raise ConfigError(
                f"pathways are unknown or stand twice: {', '.join(unknown[:5]) or 'twice'}",
                where=f"{where}.pathways",
                cure="name each set once, as the gene sets do",
            )
        sets = {name: sets[name] for name in params.pathways}
    digest = params.gene_sets_sha256
    if digest is not None and gene_sets_digest(sets) != digest:
        raise ConfigError(
            "these are not the gene sets the study was frozen with",
            where=f"{where}.gene_sets_sha256",
            why=f"found {gene_sets_digest(sets):.16}, expected {digest:.16}",
            cure="use the file that the coordinator sent",
        )
    return sets


def check_spec(spec: FeatureSpec, sets: GeneSets, where: str) -> None:
    """Refuse a feature set whose sizes or names are not those of the gene sets.

    Raises:
        ConfigError: With the right sizes in the fix.
    """
    longest = max(len(genes) for genes in sets.values())
    if (spec.dim, spec.max_tokens) != (longest, len(sets)):
        raise ConfigError(
            f"dim {spec.dim}, max_tokens {spec.max_tokens} do not fit the gene sets",
            where=where,
            why=f"{len(sets)} sets, the largest of {longest} genes",
            cure=f"set dim: {longest} and max_tokens: {len(sets)}",
        )
    if spec.pool == "row_mean" and spec.names is not None and spec.names != list(sets):
        raise ConfigError(
            "the names are not those of the gene sets in their order",
            where=f"{where}.names",
            cure="copy the names of the sets, or leave `names` out",
        )


def public_scaling(
    params: PathwayParams, genes: tuple[str, ...], where: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], str]:
    """Return mean (G,), sd (G,) and the digest of the public statistics.

    Without statistics z-scores stay as they are, and log2(TPM + 0.001) is mapped from its range
    to [-1, 1].

    Raises:
        ConfigError: The file is unusable or lacks a gene.
    """
    if params.gene_stats is None and params.gene_scaling is None:
        low, high = LOG2_TPM_RANGE if params.input_scale == "log2_tpm" else (-1.0, 1.0)
        mean, sd = np.full(len(genes), (low + high) / 2), np.full(len(genes), (high - low) / 2)
        return mean, sd, ""
    place = f"{where}.extractor.params.gene_{'stats' if params.gene_stats else 'scaling'}"
    try:
        stats = _gene_statistics(params).loc[list(genes), ["mean", "sd"]]
        mean, sd = (stats[column].to_numpy(dtype=np.float64) for column in ("mean", "sd"))
    except (OSError, KeyError, ValueError, pd.errors.ParserError) as error:
        raise ConfigError(
            "the public gene statistics cannot be used",
            where=f"{place}: {params.gene_stats or ''}",
            why=" ".join(str(error).split())[:200],
            cure="give a CSV with the columns gene, mean, sd and a row for each gene of the sets",
        ) from error
    if len(mean) != len(genes) or not (np.isfinite(mean).all() and (sd > 0).all()):
        raise ConfigError(
            "the public gene statistics hold a gene twice, a gap, or an sd that is not positive",
            where=f"{place}: {params.gene_stats or ''}",
            cure="give each gene one finite mean and one positive sd",
        )
    return mean, sd, sha256_hex(mean.astype("<f8").tobytes() + sd.astype("<f8").tobytes())


def _gene_statistics(params: PathwayParams) -> pd.DataFrame:
    """Return mean and sd, a row a gene, from the file or from the study itself."""
    if params.gene_scaling is None:
        return pd.read_csv(str(params.gene_stats)).set_index("gene")
    return pd.DataFrame.from_dict(params.gene_scaling, orient="index", columns=["mean", "sd"])
