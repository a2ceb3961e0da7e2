"""Write `report.json`: the same numbers as the page, for programs."""

from collections.abc import Mapping
from typing import Any

from common.metrics.catalogue import headlines
from common.metrics.summaries.summary import EvaluationSummary, SiteSummary
from common.metrics.tables.estimate import MIN_SHOWN, Estimate
from server.report.content import DISCLAIMER, Baseline, ReportContent, as_json
from server.report.hospital_rows import HospitalRow, hospital_rows

_FACTS = (
    *("mode", "unit", "epsilon", "delta", "promise", "clip", "sigma", "mu"),
    *("colluders", "n_min", "fallback_epsilon"),
)
_CURVE = ("time_months", "survival", "ci_low", "ci_high", "cumulative_hazard", "at_risk")


def report_json(content: ReportContent) -> dict[str, Any]:
    """Return the report as plain JSON values; a missing metric is null with its reason."""
    result = content.result
    return {
        "disclaimer": DISCLAIMER,
        "synthetic": content.synthetic,
        "study_id": result.study.study_id,
        "study_digest": result.study.digest(),
        "model": result.study.model.name,
        "model_digest": result.model_digest,
        "run_id": result.run_id,
        "rounds": len(result.history),
        "sites": [_site(content, row) for row in hospital_rows(content)],
        "global": _metrics(content.summary.overall),
        "leave_one_out": {
            site_id: _headline(summary)
            for site_id, summary in content.summary.leave_one_out.items()
        },
        "worst_site": {
            name: {"site": site_id, **as_json(estimate, name)}
            for name, (site_id, estimate) in content.summary.worst_site.items()
        },
        "subgroups": {name: group.as_dict() for name, group in content.summary.subgroups.items()},
        "baselines": {baseline.name: _baseline(baseline) for baseline in content.baselines},
        "privacy": _privacy(content),
        **_curves(content.summary),
        "learning_curve": [record.model_dump(mode="json") for record in result.history],
        "caveats": content.caveats,
    }


def _site(content: ReportContent, row: HospitalRow) -> dict[str, Any]:
    state = content.result.sites[row.site_id]
    n = state.cohort.usable if state.cohort is not None else None
    small = n is not None and 0 < n < MIN_SHOWN
    entry: dict[str, Any] = {
        "site_id": row.site_id,
        "took_part": row.took_part,
        "n": None if small else n,
        "funnel": row.funnel,
        "modalities": list(state.modalities),
        "available": row.available,
        "rounds": row.rounds,
        "missed": row.missed,
        "share_of_training_patients": row.share,
        **_spent(content, state.epsilon_spent, state.evaluation_epsilon_spent),
    }
    if n is None or small:
        entry["n_reason"] = (
            f"fewer than {MIN_SHOWN} patients"
            if small
            else "cohort sizes are private; shown only with internal evaluation"
        )
    for metric in headlines():
        entry |= as_json(content.metric(metric.name, row.site_id), metric.name)
    return entry


def _spent(content: ReportContent, training: float, evaluation: float) -> dict[str, Any]:
    """Return what a hospital spent; null with its reason where something left without noise.

    A ledger has nothing to add up for exact releases, and zero would read as perfect privacy.
    """
    facts = content.result.privacy
    entry: dict[str, Any] = {"epsilon_spent": training, "evaluation_epsilon_spent": evaluation}
    if facts.mode == "none":
        entry["epsilon_spent"] = None
        entry["epsilon_spent_reason"] = "updates left without noise: no epsilon bounds them"
    if facts.release == "internal":
        entry["evaluation_epsilon_spent"] = None
        entry["evaluation_epsilon_spent_reason"] = "exact tables left: no epsilon bounds them"
    return entry


def _all(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {k: v for name, e in estimates.items() for k, v in as_json(e, name).items()}


def _metrics(summary: SiteSummary) -> dict[str, Any]:
    entries = _all(summary.metrics)
    for name in (*(metric.name for metric in headlines()), "log_rank_p"):
        if name not in entries:
            entries |= {name: None, f"{name}_reason": "the study has no such endpoint"}
    return entries


def _headline(summary: SiteSummary) -> dict[str, Any]:
    names = [metric.name for metric in headlines() if metric.name in summary.metrics]
    return _all({name: summary.metrics[name] for name in names})


def _baseline(baseline: Baseline) -> dict[str, Any]:
    entry: dict[str, Any] = {"what": baseline.explanation, **_all(baseline.metrics)}
    if baseline.per_site:
        entry["sites"] = {site: _all(metrics) for site, metrics in baseline.per_site.items()}
    if baseline.differences:
        entry["federated_minus_it"] = {
            name: difference.as_dict() for name, difference in baseline.differences.items()
        }
    return entry


def _privacy(content: ReportContent) -> dict[str, Any]:
    facts = content.result.privacy
    budgets = {
        site_id: _spent(content, facts.epsilon_spent[site_id], evaluation)
        for site_id, evaluation in facts.evaluation_epsilon_spent.items()
    }
    return {
        **{name: getattr(facts, name) for name in _FACTS},
        "evaluation_release": facts.release,
        "evaluation_tables": {
            name: {"epsilon": noise.epsilon, "sensitivity": noise.sensitivity}
            for name, noise in content.evaluation_noise.items()
        },
        "evaluation_margins_epsilon": content.margin_noise,
        "epsilon_spent": {name: budget["epsilon_spent"] for name, budget in budgets.items()},
        "evaluation_epsilon_spent": {
            name: budget["evaluation_epsilon_spent"] for name, budget in budgets.items()
        },
        "ledger_heads": facts.ledger_heads,
    }


def _curves(summary: EvaluationSummary) -> dict[str, Any]:
    return {
        "survival_curves": [
            {
                "label": curve.label,
                **{name: getattr(curve, name).tolist() for name in _CURVE},
            }
            for curve in summary.curves
        ],
        "auc_over_time": [
            {"months": point.months, **as_json(point.auc, "auc")} for point in summary.auc_curve
        ],
        "roc": None
        if summary.roc is None
        else {"false_positive_rate": summary.roc[0], "true_positive_rate": summary.roc[1]},
        "calibration": {
            name: [vars(group) for group in reliability.groups]
            for name, reliability in summary.reliability.items()
        },
    }
