"""Read gene sets: named lists of genes in a public order, from GMT or column-wise CSV.

The order of the sets and of the genes in each is part of the model's meaning; the digest
fixes both.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.contract import canonical_json, sha256_hex
from common.errors import ConfigError

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
