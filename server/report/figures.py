"""Draw every figure of a report from its content; what cannot be drawn is left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from common.metrics.metric import Headline
from server.report.content import ReportContent
from server.report.forest_plot import (
    ForestRow,
    ForestScale,
    difference_scale,
    forest_size,
    plot_forest,
    value_scale,
)
from server.report.performance_plots import (
    FLAT,
    SQUARE,
    plot_auc_over_time,
    plot_calibration,
    plot_learning,
    plot_roc,
)
from server.report.survival_plot import SIZE, heights, plot_survival, survival_in_words
from server.report.svg import WIDTH, to_svg
from server.session.round_metrics import ROUND_METRICS

COLUMNS = 2
"""Panels beside each other."""


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
    return Figures(
        learning=_learning(content),
        survival=_survival(content),
        roc=_roc(content),
        auc_over_time=_auc_over_time(content),
        calibration=_calibration(content),
        forests=[_by_site(content, metric) for metric in content.headlines],
        differences=[svg for metric in content.headlines if (svg := _differences(content, metric))],
        subgroups=[svg for metric in content.headlines if (svg := _by_subgroup(content, metric))],
    )


def _learning(content: ReportContent) -> str:
    history = content.result.history
    metrics = [m.name for m in ROUND_METRICS if m.in_report and m.points(history)]
    rows = -(-len(metrics) // COLUMNS)

    def draw(figure: Figure) -> None:
        for place, metric in enumerate(metrics, 1):
            plot_learning(history, metric, ax=figure.add_subplot(rows, COLUMNS, place))

    label = f"Learning curve over {len(history)} rounds"
    return to_svg(draw, (WIDTH, 0.2 + 2.0 * rows), name="learning", label=label)


def _survival(content: ReportContent) -> str | None:
    summary = content.summary
    if not summary.curves:
        return None
    p_value = summary.overall.metrics.get("log_rank_p")
    exact = summary.release == "internal"

    def draw(figure: Figure) -> None:
        curves = summary.curves
        ax, table = figure.subplots(2, 1, height_ratios=heights(curves), sharex=True)
        plot_survival(curves, exact=exact, p_value=p_value, ax=ax, table=table)

    return to_svg(draw, SIZE, name="km", label=survival_in_words(summary.curves))


def _roc(content: ReportContent) -> str | None:
    points = content.summary.roc
    if points is None:
        return None
    label = f"ROC curve of response, AUC {content.metric('response_auc')}"
    return to_svg(lambda f: plot_roc(points, ax=f.subplots()), SQUARE, name="roc", label=label)


def _auc_over_time(content: ReportContent) -> str | None:
    points, endpoint = content.summary.auc_curve, content.result.study.endpoints.survival
    if not points or endpoint is None:
        return None
    horizons = endpoint.horizons_months
    labels = [f"{p.months:g} months {p.auc}" for p in points if p.months in horizons]

    def draw(figure: Figure) -> None:
        plot_auc_over_time(points, horizons, ax=figure.subplots())

    return to_svg(draw, FLAT, name="auc-time", label=f"AUC over time: {'; '.join(labels)}")


def _calibration(content: ReportContent) -> str | None:
    panels = list(content.summary.reliability.values())
    if not panels:
        return None
    rows = -(-len(panels) // COLUMNS)

    def draw(figure: Figure) -> None:
        for place, panel in enumerate(panels, 1):
            plot_calibration(panel, ax=figure.add_subplot(rows, COLUMNS, place))

    label = "Calibration: " + "; ".join(
        f"{panel.title}: "
        + ", ".join(f"predicted {g.predicted:.0%} observed {g.observed:.0%}" for g in panel.groups)
        for panel in panels
    )
    return to_svg(draw, (WIDTH, 0.3 + 2.6 * rows), name="calibration", label=label)


def forest_svg(rows: Sequence[ForestRow], *, name: str, title: str, scale: ForestScale) -> str:
    """Return a forest for a page."""

    def draw(figure: Figure) -> None:
        plot_forest(rows, title=title, scale=scale, ax=figure.subplots())

    label = f"{title}: " + "; ".join(f"{row.label} {row.estimate}" for row in rows)
    return to_svg(draw, forest_size(rows), name=name, label=label)


def _by_site(content: ReportContent, metric: Headline) -> str:
    name = metric.name
    rows = [ForestRow("federated, all hospitals", content.metric(name), "overall")]
    rows += [ForestRow(s, content.metric(name, s)) for s in sorted(content.summary.per_site)]
    rows += [
        ForestRow(baseline.title.lower(), baseline.metrics[name], "baseline")
        for baseline in content.baselines
        if name in baseline.metrics and baseline.metrics[name].estimable
    ]
    return forest_svg(rows, name=f"forest-{name}", title=metric.label, scale=value_scale(metric))


def _differences(content: ReportContent, metric: Headline) -> str | None:
    rows = [
        ForestRow(f"against {baseline.title.lower()}", paired.difference)
        for baseline in content.baselines
        if (paired := baseline.differences.get(metric.name)) is not None
    ]
    if not rows:
        return None
    name, title = f"paired-{metric.name}", f"{metric.label}: federated minus other"
    return forest_svg(rows, name=name, title=title, scale=difference_scale(metric))


def _by_subgroup(content: ReportContent, metric: Headline) -> str | None:
    name = metric.name
    rows = [ForestRow("all patients", content.metric(name), "overall")]
    for group, summary in content.summary.subgroups.items():
        for level, metrics in summary.levels.items():
            if name in metrics:
                rows.append(ForestRow(f"{group}: {level}", metrics[name]))
    if not any(row.estimate.estimable for row in rows[1:]):
        return None
    return forest_svg(rows, name=f"subgroup-{name}", title=metric.label, scale=value_scale(metric))
