"""Every figure of a report, drawn from its content; what cannot be drawn is left out."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.metrics.tables.estimate import Estimate
from server.report.auc_plot import auc_over_time_svg
from server.report.calibration_plot import calibration_svg
from server.report.content import HEADLINE, ReportContent
from server.report.forest_plot import DIFFERENCE, ForestRow, forest_svg
from server.report.learning_plot import learning_svg
from server.report.metric_names import HEADLINE_TITLES
from server.report.roc_plot import roc_svg
from server.report.survival_plot import survival_svg


@dataclass(frozen=True)
class Figures:
    """Inline SVG of a report; None or empty where there is nothing to draw.

    Attributes:
        learning: Learning curves.
        survival: Kaplan-Meier with patients at risk.
        roc: ROC of the response.
        auc_over_time: Cumulative/dynamic AUC.
        calibration: Reliability of both tasks.
        forests: Headline metrics by hospital, beside the baselines.
        differences: Paired differences from the baselines, by headline metric.
        subgroups: Headline metrics by subgroup.
    """

    learning: str
    survival: str | None = None
    roc: str | None = None
    auc_over_time: str | None = None
    calibration: str | None = None
    forests: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    subgroups: list[str] = field(default_factory=list)


def draw_figures(content: ReportContent) -> Figures:
    """Return the figures of a report."""
    summary, study = content.summary, content.result.study
    endpoint = study.endpoints.survival
    metrics = [name for name in HEADLINE if name in summary.overall.metrics]
    survival = roc = auc = calibration = None
    if summary.curves:
        p_value = p_in_words(summary.overall.metrics.get("log_rank_p"))
        exact = summary.release == "internal"
        survival = survival_svg(summary.curves, exact=exact, p_value=p_value)
    if summary.roc is not None:
        roc = roc_svg(summary.roc, str(content.metric("response_auc")))
    if summary.auc_curve and endpoint is not None:
        auc = auc_over_time_svg(summary.auc_curve, endpoint.horizons_months)
    if summary.reliability:
        panels = {_panel(name): groups for name, groups in summary.reliability.items()}
        calibration = calibration_svg(panels)
    return Figures(
        learning=learning_svg(content.result.history, len(study.sites)),
        survival=survival,
        roc=roc,
        auc_over_time=auc,
        calibration=calibration,
        forests=[_by_site(content, name) for name in metrics],
        differences=[drawn for name in metrics if (drawn := _differences(content, name))],
        subgroups=[drawn for name in metrics if (drawn := _by_subgroup(content, name))],
    )


def p_in_words(p_value: Estimate | None) -> str:
    """Return a p value as a title has it.

    >>> p_in_words(Estimate(0.00002))
    'p < 0.001'
    """
    if p_value is None or p_value.value is None:
        return "not estimable"
    return "p < 0.001" if p_value.value < 0.001 else f"p = {p_value.value:.3f}"


def _panel(name: str) -> str:
    if name == "response":
        return "Response"
    months = name.removeprefix("survival_").removesuffix("m")
    return f"Death by {months} months"


def _by_site(content: ReportContent, name: str) -> str:
    rows = [ForestRow("federated, all hospitals", content.metric(name), "overall")]
    rows += [ForestRow(s, content.metric(name, s)) for s in sorted(content.summary.per_site)]
    rows += [
        ForestRow(baseline.title.lower(), baseline.metrics[name], "baseline")
        for baseline in content.baselines
        if name in baseline.metrics and baseline.metrics[name].estimable
    ]
    return forest_svg(rows, name=f"forest-{name}", title=HEADLINE_TITLES[name])


def _differences(content: ReportContent, name: str) -> str | None:
    rows = [
        ForestRow(f"against {baseline.title.lower()}", paired.difference)
        for baseline in content.baselines
        if (paired := baseline.differences.get(name)) is not None
    ]
    title = f"{HEADLINE_TITLES[name]}: federated minus other"
    return forest_svg(rows, name=f"paired-{name}", title=title, scale=DIFFERENCE) if rows else None


def _by_subgroup(content: ReportContent, name: str) -> str | None:
    rows = [ForestRow("all patients", content.metric(name), "overall")]
    for group, summary in content.summary.subgroups.items():
        for level, metrics in summary.levels.items():
            if name in metrics:
                rows.append(ForestRow(f"{group}: {level}", metrics[name]))
    if not any(row.estimate.estimable for row in rows[1:]):
        return None
    return forest_svg(rows, name=f"subgroup-{name}", title=HEADLINE_TITLES[name])
