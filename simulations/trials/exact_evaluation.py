"""Predict whole cohorts and compute the federation's own metrics, as only a simulation may."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from client.data.dataset import PatientDataset
from common.metrics.summaries.paired import Comparison, compare, compare_within_sites, tabulate_pair
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import EvaluationSummary, summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.tables import merge
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.privacy.plan import EvaluationRelease
from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort

CHUNK = 256


def exact_grid(study: Study, by_site: Mapping[str, Predictions]) -> EvaluationGrid:
    """Return the grid on which an `internal` two-phase evaluation would tabulate.

    Args:
        study: The study; its release mode is replaced by `internal`.
        by_site: Site -> predictions of its held-out patients.
    """
    release = EvaluationRelease(release="internal")
    exact = study.model_copy(
        update={"privacy": study.privacy.model_copy(update={"evaluation": release})}
    )
    first = EvaluationGrid.for_study(exact)
    return refined(first, merge([tabulate(p, first, "margins") for p in by_site.values()]))


def exact_summary(study: Study, by_site: Mapping[str, Predictions]) -> EvaluationSummary:
    """Return what an `internal` two-phase evaluation of these predictions would say."""
    grid = exact_grid(study, by_site)
    return summarise({site: tabulate(p, grid) for site, p in by_site.items()}, grid)


def paired_differences(
    study: Study, first: Mapping[str, Predictions], second: Mapping[str, Predictions]
) -> dict[str, Comparison]:
    """Return second minus first model over all patients together, by metric.

    Args:
        study: The study.
        first: Site -> predictions of one model.
        second: Site -> predictions of the other for the same patients in the same order.
    """
    grids = exact_grid(study, first), exact_grid(study, second)
    tables = [tabulate_pair(first[site], second[site], *grids) for site in sorted(first)]
    return compare(tables, grids[0])


def paired_within_sites(
    study: Study, first: Mapping[str, Predictions], second: Mapping[str, Predictions]
) -> dict[str, Comparison]:
    """Return second minus first model inside each site, weighted by patients, by metric.

    Every site's scores are cut on their own: the models of two sites share no scale.
    """
    tables = {}
    for site, predictions in first.items():
        grids = [exact_grid(study, {site: p}) for p in (predictions, second[site])]
        tables[site] = tabulate_pair(predictions, second[site], grids[0], grids[1])
    return compare_within_sites(tables, EvaluationGrid.for_study(study))


def predict_cohort(study: Study, arrays: Arrays, patients: Cohort | PatientDataset) -> Predictions:
    """Return predictions of the study's model with these parameters, in the patients' order."""
    model = build_model(study)
    load_arrays(model, arrays)
    dataset = patients.dataset(study) if isinstance(patients, Cohort) else patients
    return predict_dataset(model, dataset, study)


def predict_dataset(model: FusedModel, dataset: PatientDataset, study: Study) -> Predictions:
    """Return predictions beside outcomes for all patients, in the dataset's order."""
    grid = EvaluationGrid.for_study(study)
    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(dataset), CHUNK):
            batch = dataset.batch(range(start, min(start + CHUNK, len(dataset))))
            parts.append(Predictions.from_outputs(model(batch), batch, grid))
    return replace(Predictions.concatenate(parts), subgroups=dataset.subgroups)
