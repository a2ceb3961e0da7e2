"""Write `report.html`, one offline page, readable on a phone and on paper, and the two cards.

The study card (items of TRIPOD+AI, Collins et al., BMJ 2024) and the model card (Mitchell et al.,
FAT* 2019) are Markdown filled from the run. Nothing is invented: what only people can know stands
there as a field to complete.
"""

from collections.abc import Iterable
from typing import Any

from common.metrics.catalogue import METRICS
from common.metrics.metric import Headline, Metric
from common.metrics.tables.estimate import Estimate
from common.page.templates import templates
from common.study.study import Study
from server.report.content import DISCLAIMER, ReportContent
from server.report.figures import draw_figures
from server.report.hospital_rows import STEPS, hospital_rows

MINUS = "\N{MINUS SIGN}"


def report_html(content: ReportContent) -> str:
    """Return the page."""
    environment = templates("server.report")
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


TO_COMPLETE = "_To be completed by the study team._"


def study_card(content: ReportContent) -> str:
    """Return the TRIPOD+AI study card."""
    return _render("study_card.md.j2", content)


def model_card(content: ReportContent) -> str:
    """Return the model card."""
    return _render("model_card.md.j2", content)


def _render(name: str, content: ReportContent) -> str:
    environment = templates("server.report", autoescape=False)
    environment.filters |= {"cell": cell, "estimate": _estimate, "signed": signed, "number": number}
    study = content.result.study
    return environment.get_template(name).render(
        **shared(content),
        figures=by_task(content.metrics),
        known_baselines=[
            b
            for b in content.baselines
            if any(estimate.estimable for estimate in b.metrics.values())
        ],
        n_parameters=sum(array.size for array in content.result.arrays.values()),
        outcomes=_outcomes(study),
        training=_training(study),
        measures=_measures(study),
        people=TO_COMPLETE,
    )


def cell(text: object) -> str:
    r"""Return text that cannot break a Markdown table or start markup.

    >>> cell("a|b <i>")
    'a\\|b &lt;i>'
    """
    one_line = " ".join(str(text).split())
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _estimate(estimate: Estimate) -> str:
    return cell(show(estimate))


def _outcomes(study: Study) -> list[str]:
    lines = []
    response, survival = study.endpoints.response, study.endpoints.survival
    if response is not None:
        lines.append(f"Treatment response, binary; 1 means: {cell(response.positive)}.")
    if survival is not None:
        edges = ", ".join(f"{edge:g}" for edge in survival.edges_months)
        horizons = ", ".join(f"{months:g}" for months in survival.horizons_months)
        lines.append(
            f"Overall survival from the study's time zero, right-censored; discrete intervals "
            f"from {edges} months, the last one open; horizons {horizons} months."
        )
    return lines


def _measures(study: Study) -> list[str]:
    survival = study.endpoints.survival
    horizons = ", ".join(f"{months:g}" for months in (survival.horizons_months if survival else ()))
    return [metric.label.format(horizons) for metric in METRICS if metric.task in study.tasks]


def _training(study: Study) -> list[str]:
    plan = study.training
    if plan.local.kind == "gradient_sum":
        local = "one full-batch sum of per-patient gradients per round"
    else:
        amount = f"{plan.local.steps} steps" if plan.local.steps else f"{plan.local.epochs} epochs"
        local = f"{amount} of {plan.local.optimizer} (learning rate {plan.local.lr:g}) a round"
    return [
        f"{plan.rounds} rounds planned; at each hospital {local}.",
        f"Server: {plan.server.name}, learning rate {plan.server.lr:g}; weight decay "
        f"{plan.weight_decay:g}; mean of the last {plan.average_last:.0%} of iterates.",
        f"Gradient sums are divided by the public count {plan.nominal_patients}.",
    ]
