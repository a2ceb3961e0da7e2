"""Write `report.html`: one offline page, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jinja2

from common.metrics.metric import Headline, Metric
from common.metrics.tables.estimate import Estimate
from server.report.content import DISCLAIMER, ReportContent
from server.report.figures import draw_figures
from server.report.hospital_rows import STEPS, hospital_rows

MINUS = "\N{MINUS SIGN}"


def report_html(content: ReportContent) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "estimate": show,
        "interval": interval,
        "number": number,
        "signed": signed,
    }
    others = by_task((m, e) for m, e in content.metrics if not isinstance(m, Headline))
    template = environment.get_template("report.html.j2")
    return template.render(**shared(content), figures=draw_figures(content), others=others)


def shared(content: ReportContent) -> dict[str, Any]:
    """Return what the templates of page and cards have in common."""
    return {
        "content": content,
        "summary": content.summary,
        "study": content.result.study,
        "privacy": content.result.privacy,
        "history": content.result.history,
        "rows": hospital_rows(content),
        "steps": STEPS,
        "titles": {metric.name: metric.label for metric in content.headlines},
        "metrics": [metric.name for metric in content.headlines],
        "disclaimer": DISCLAIMER,
    }


def by_task(metrics: Iterable[tuple[Metric, Estimate]]) -> dict[str, dict[str, Estimate]]:
    """Return estimates by title under `Response` and `Survival`, a heading without any left out."""
    groups: dict[str, dict[str, Estimate]] = {}
    for metric, estimate in metrics:
        groups.setdefault(metric.task.capitalize(), {})[metric.full_title] = estimate
    return groups


def show(estimate: Estimate) -> str:
    """Return an estimate as a reader sees it, or why there is none."""
    if estimate.value is None:
        return f"not estimable: {estimate.reason}"
    limits = interval(estimate)
    text = _value(estimate.value) + (f" ({limits})" if limits else "")
    return f"{text}; {estimate.reason}" if estimate.reason else text


def interval(estimate: Estimate) -> str:
    """Return the 95 % interval of an estimate, or an empty text."""
    if estimate.ci_low is None or estimate.ci_high is None:
        return ""
    between = " to " if estimate.ci_low < 0 else "–"
    text = f"{_limit(estimate.ci_low)}{between}{_limit(estimate.ci_high)}"
    return text.replace("-", MINUS)


def signed(estimate: Estimate) -> str:
    """Return a difference with its sign, or why there is none."""
    if estimate.value is None:
        return f"not estimable: {estimate.reason}"
    text = "0.000" if abs(estimate.value) < 0.0005 else f"{estimate.value:+.3f}"
    if estimate.ci_low is not None and estimate.ci_high is not None:
        text += f" ({estimate.ci_low:+.3f} to {estimate.ci_high:+.3f})"
    return text.replace("-", MINUS)


def number(value: float) -> str:
    """Return a number with as many digits as a reader can use."""
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    if value == int(value) and value != 0:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _value(value: float) -> str:
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return (f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}").replace("-", MINUS)


def _limit(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
