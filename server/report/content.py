"""Assemble the content of a report, as one typed value for the page and the JSON twin."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.metrics.catalogue import headlines, metrics_at
from common.metrics.metric import Headline, Metric
from common.metrics.summaries.paired import Comparison
from common.metrics.summaries.summary import EvaluationSummary
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.table_schema import TableNoise, noise_plan
from common.protocol.evaluation_request import FEDERATED, PERSONAL
from common.trust.weights_card import weights_in_words
from server.run.rounds import RunResult

DISCLAIMER = (
    "Research software for decision support, not a medical device. No figure here may guide the "
    "treatment of a patient."
)


@dataclass(frozen=True)
class Baseline:
    """Something the federated model is compared with.

    Attributes:
        name: pooled, local_only, clinical_floor or oracle.
        title: Name for readers.
        explanation: What it is and where it can be had.
        metrics: Headline metrics over all sites.
        per_site: Headline metrics by site.
        differences: Federated model minus this one on the same patients, by headline metric;
            empty where their predictions were not paired.
    """

    name: str
    title: str
    explanation: str
    metrics: dict[str, Estimate]
    per_site: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, Comparison] = field(default_factory=dict)


BASELINES = {
    "pooled": ("Pooled", "one model over all patients in one place; simulation only"),
    "local_only": ("Each hospital alone", "every hospital trains and tests on its own patients"),
    "clinical_floor": (
        "Clinical floor",
        "ridge Cox and logistic regression on the clinical table of all hospitals",
    ),
    "oracle": ("Oracle", "the true model behind the synthetic outcomes; synthetic data only"),
}

PERSONAL_BASELINE = (
    "Personal models",
    "every hospital's own model, trained beside the federated one in this run",
)


def absent_baseline(name: str, reason: str) -> Baseline:
    """Return a baseline that this run cannot have, and why."""
    title, explanation = BASELINES[name]
    missing = {metric.name: not_estimable(reason) for metric in headlines()}
    return Baseline(name, title, explanation, missing)


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows."""

    result: RunResult
    summary: EvaluationSummary
    baselines: list[Baseline]
    caveats: list[str]

    @property
    def headlines(self) -> list[Headline]:
        """Metrics by which models are compared, as far as the study has their task."""
        return [metric for metric in headlines() if metric.name in self.summary.overall.metrics]

    @property
    def metrics(self) -> list[tuple[Metric, Estimate]]:
        """Metrics of all hospitals together, in the order of the catalogue."""
        survival, overall = self.result.study.endpoints.survival, self.summary.overall.metrics
        by_name = metrics_at(survival.horizons_months if survival else ())
        return [(metric, overall[metric.name]) for metric in by_name if metric.name in overall]

    @property
    def synthetic(self) -> bool:
        """Whether the data is synthetic."""
        return self.result.study.synthetic

    @property
    def patients_evaluated(self) -> int | None:
        """Held-out patients behind the larger of both tasks; None where it may not be shown."""
        counts = (self.summary.overall.n_survival, self.summary.overall.n_response)
        return max((count for count in counts if count is not None), default=None)

    @property
    def evaluation_noise(self) -> dict[str, TableNoise]:
        """Noise of every table of the evaluation; empty for exact ones."""
        return self.result.evaluations[FEDERATED].noise

    @property
    def margin_noise(self) -> float:
        """Epsilon of the margins that were released before the tables."""
        grid = self.result.evaluations[FEDERATED].grid
        if not grid.two_phases:
            return 0.0
        margins = noise_plan(grid, "margins", two_phases=True)
        return sum(noise.epsilon for noise in margins.values())

    def metric(self, name: str, site_id: str | None = None) -> Estimate:
        """Return a metric of a site, or of all together; with a reason where there is none."""
        if site_id is None:
            metrics = self.summary.overall.metrics
        elif site_id in self.summary.per_site:
            metrics = self.summary.per_site[site_id].metrics
        else:
            return not_estimable(self._why_no_site(site_id))
        return metrics.get(name, not_estimable("the study has no such endpoint"))

    def _why_no_site(self, site_id: str) -> str:
        refusals = self.result.evaluations[FEDERATED].refusals
        if site_id in refusals:
            return f"the site sent no tables ({refusals[site_id]})"
        if not self.result.sites[site_id].enrolled:
            return "the site did not take part"
        return "only the federation total is visible"


def make_content(
    result: RunResult, baselines: Sequence[Baseline] = (), caveats: Sequence[str] = ()
) -> ReportContent:
    """Summarise a finished run; baselines that were not given are shown as absent."""
    evaluation = result.evaluations[FEDERATED]
    summary = evaluation.summary()
    by_name = {baseline.name: baseline for baseline in baselines}
    reason = "simulations only"
    complete = [by_name.get(name) or absent_baseline(name, reason) for name in BASELINES]
    if PERSONAL in result.evaluations:
        complete.insert(0, _personal(result))
    caveat_lines = [*_caveats(result), *summary.caveats, *caveats]
    return ReportContent(result, summary, complete, caveat_lines)


def _personal(result: RunResult) -> Baseline:
    """Return the hospitals' personal models; their scores are only ranked inside a hospital."""
    metrics = result.evaluations[PERSONAL].summary().metrics
    title, explanation = PERSONAL_BASELINE
    baselines = {}
    for metric in headlines():
        inside = metrics.get(metric.within_sites)
        if inside is not None:
            note = "inside hospitals" if inside.value is not None else inside.reason
            baselines[metric.name] = replace(inside, reason=note)
    by_metric = result.comparisons.get(PERSONAL, {})
    differences = {name: comparison.reverse() for name, comparison in by_metric.items()}
    return Baseline(PERSONAL, title, explanation, baselines, differences=differences)


def _caveats(result: RunResult) -> list[str]:
    study, facts = result.study, result.privacy
    lines = []
    if study.synthetic:
        lines.append("All patients are synthetic: these figures test the software, not medicine.")
    if facts.release == "internal":
        lines.append(
            "The evaluation tables are exact and not differentially private; every hospital "
            "agreed to this. The training guarantee does not cover them."
        )
    if facts.mode == "none":
        lines.append("Trained without differential privacy: updates left unprotected.")
    lines += [f"Origin of weights: {line}." for line in weights_in_words(study)]
    absent = [site for site, state in result.sites.items() if not state.enrolled]
    if absent:
        lines.append(f"Did not take part: {', '.join(absent)}.")
    return lines


def as_json(estimate: Estimate, name: str) -> dict[str, Any]:
    """Return `{name: value, ...}` with interval, or null with its reason beside it."""
    entry: dict[str, Any] = {name: estimate.value}
    if estimate.value is None:
        entry[f"{name}_reason"] = estimate.reason
        return entry
    if estimate.reason is not None:
        entry[f"{name}_caveat"] = estimate.reason
    if estimate.ci_low is not None:
        entry[f"{name}_ci"] = [estimate.ci_low, estimate.ci_high]
    if estimate.error_bound is not None:
        entry[f"{name}_error_bound"] = estimate.error_bound
    if estimate.noise_sd is not None:
        entry[f"{name}_noise_sd"] = estimate.noise_sd
    return entry
