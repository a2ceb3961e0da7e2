"""`report.html`: one offline page, readable on a phone and on paper."""

from __future__ import annotations

from typing import Any

import jinja2

from common.metrics.estimate import Estimate
from server.report.content import DISCLAIMER, HEADLINE, ReportContent
from server.report.forest_plot import ForestRow, forest_svg
from server.report.learning_plot import learning_svg
from server.report.roc_plot import roc_svg
from server.report.survival_plot import survival_svg

NAMES = {"response_auc": "Response, ROC AUC", "c_index": "Survival, Harrell's C"}
MODALITIES = ("pathology", "radiology", "genomics", "clinical")


def report_html(content: ReportContent) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"estimate": show, "number": _number}
    metrics = [name for name in HEADLINE if name in content.summary.overall.metrics]
    return environment.get_template("report.html.j2").render(
        content=content,
        study=content.result.study,
        privacy=content.result.privacy,
        sites=content.result.sites,
        history=content.result.history,
        names=NAMES,
        metrics=metrics,
        modalities=MODALITIES,
        disclaimer=DISCLAIMER,
        figures=_figures(content, metrics),
        others={
            name: estimate
            for name, estimate in content.summary.overall.metrics.items()
            if name not in HEADLINE
        },
    )


def show(estimate: Estimate) -> str:
    """Return an estimate as a reader sees it, or why there is none."""
    if estimate.value is None:
        return f"not estimable: {estimate.reason}"
    text = _number(estimate.value)
    if estimate.ci_low is not None:
        text += f" ({estimate.ci_low:.2f}–{estimate.ci_high:.2f})"
    return text


def _number(value: float) -> str:
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    if value == int(value) and value != 0:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _figures(content: ReportContent, metrics: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {"learning": learning_svg(content.result.history), "forests": []}
    if content.summary.curves:
        p_value = content.summary.overall.metrics.get("log_rank_p")
        figures["survival"] = survival_svg(
            content.summary.curves,
            exact=content.summary.release == "internal",
            p_value=_p_in_words(p_value),
        )
    if content.summary.roc is not None:
        auc = content.metric("response_auc")
        figures["roc"] = roc_svg(content.summary.roc, str(auc))
    for name in metrics:
        rows = [ForestRow("federated, all sites", content.metric(name), "overall")]
        rows += [ForestRow(s, content.metric(name, s)) for s in sorted(content.summary.per_site)]
        rows += [
            ForestRow(b.title.lower(), b.metrics[name], "baseline")
            for b in content.baselines
            if name in b.metrics
        ]
        figures["forests"].append(forest_svg(rows, name=f"forest-{name}", title=NAMES[name]))
    return figures


def _p_in_words(p_value: Estimate | None) -> str:
    if p_value is None or p_value.value is None:
        return "not estimable"
    return "p < 0.001" if p_value.value < 0.001 else f"p = {p_value.value:.3f}"
