"""Write study card (items of TRIPOD+AI) and model card, as Markdown filled from the run.

Items after Collins et al., BMJ 2024 (TRIPOD+AI) and Mitchell et al., FAT* 2019 (model cards).
Nothing is invented: what only people can know stands there as a field to complete.
"""

from __future__ import annotations

import jinja2

from common.metrics.catalogue import METRICS
from common.metrics.tables.estimate import Estimate
from common.study.study import Study
from server.report.content import ReportContent
from server.report.page import by_task, number, shared, show, signed

TO_COMPLETE = "_To be completed by the study team._"


def study_card(content: ReportContent) -> str:
    """Return the TRIPOD+AI study card."""
    return _render("study_card.md.j2", content)


def model_card(content: ReportContent) -> str:
    """Return the model card."""
    return _render("model_card.md.j2", content)


def _render(name: str, content: ReportContent) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.report"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
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
