"""The public trunk of a TCGA cohort: scores from RNA, slides and clinical columns of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulations.cohorts.public_projection import FloatArray
from simulations.cohorts.public_trunk import PublicPatients, PublicTrunk, fit_trunk
from simulations.cohorts.tcga_tables import (
    centred,
    clinical_columns,
    genomics_table,
    response_labels,
    rna_columns,
    rna_projection,
    slide_projection,
    slide_table,
)

RNA_COMPONENTS, SLIDE_COMPONENTS = 50, 20


@dataclass(frozen=True)
class TrunkScores:
    """TrunkScores of the target's patients.

    Attributes:
        rows: (n, tasks) float32.
        names: What each column predicts.
    """

    rows: npt.NDArray[np.float32]
    names: list[str]


def rna_scores(folder: Path, others: tuple[str, ...], genomics: pd.DataFrame) -> TrunkScores:
    """Return what the RNA of the other cohorts says about these patients."""
    return _scores(_rna_trunk(folder, others), _rna_inputs(folder, others, genomics))


def slide_scores(folder: Path, others: tuple[str, ...], slides: pd.DataFrame) -> TrunkScores:
    """Return what the slides of the other cohorts say about these patients."""
    inputs = slide_projection(folder, others, SLIDE_COMPONENTS).apply(slides)
    return _scores(_slide_trunk(folder, others), inputs.astype(np.float64))


def clinical_scores(folder: Path, others: tuple[str, ...], genomics: pd.DataFrame) -> TrunkScores:
    """Return what age, sex and stage in the other cohorts say about these patients."""
    return _scores(_clinical_trunk(folder, others), centred(clinical_columns(folder, genomics)))


@lru_cache(maxsize=16)
def _rna_trunk(folder: Path, others: tuple[str, ...]) -> PublicTrunk:
    tables = ((other, genomics_table(folder, other)) for other in others)
    return _fitted(folder, tables, lambda table: _rna_inputs(folder, others, table))


@lru_cache(maxsize=16)
def _slide_trunk(folder: Path, others: tuple[str, ...]) -> PublicTrunk:
    projection = slide_projection(folder, others, SLIDE_COMPONENTS)

    def with_slides() -> Iterable[tuple[str, pd.DataFrame]]:
        for other in others:
            table = genomics_table(folder, other)
            yield other, table[table.index.isin(slide_table(folder, other).index)]

    slides = pd.concat([slide_table(folder, other) for other in others])

    def inputs(table: pd.DataFrame) -> FloatArray:
        return projection.apply(slides.loc[table.index]).astype(np.float64)

    return _fitted(folder, with_slides(), inputs)


@lru_cache(maxsize=16)
def _clinical_trunk(folder: Path, others: tuple[str, ...]) -> PublicTrunk:
    tables = ((other, genomics_table(folder, other)) for other in others)
    return _fitted(folder, tables, lambda table: centred(clinical_columns(folder, table)))


def _fitted(
    folder: Path,
    tables: Iterable[tuple[str, pd.DataFrame]],
    inputs: Callable[[pd.DataFrame], FloatArray],
) -> PublicTrunk:
    return fit_trunk(
        {
            name: PublicPatients(
                inputs=inputs(table),
                time_months=table["survival_months"].to_numpy(dtype=np.float64),
                event=1.0 - table["censorship"].to_numpy(dtype=np.float64),
                response=response_labels(folder, table.index),
            )
            for name, table in tables
        }
    )


def _rna_inputs(folder: Path, others: tuple[str, ...], genomics: pd.DataFrame) -> FloatArray:
    projection = rna_projection(folder, others, RNA_COMPONENTS)
    return projection.apply(rna_columns(genomics)).astype(np.float64)


def _scores(trunk: PublicTrunk, inputs: FloatArray) -> TrunkScores:
    return TrunkScores(trunk.apply(inputs), list(trunk.tasks))
