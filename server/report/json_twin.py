"""`report.json`: the same numbers as the page, for programs."""

from __future__ import annotations

from typing import Any

from common.metrics.summary import SiteSummary
from server.report.content import DISCLAIMER, HEADLINE, Baseline, ReportContent, as_json


def report_json(content: ReportContent) -> dict[str, Any]:
    """Return the report as plain JSON values; a missing metric is null with its reason."""
    result, facts = content.result, content.result.privacy
    return {
        "disclaimer": DISCLAIMER,
        "synthetic": content.synthetic,
        "study_id": result.study.study_id,
        "study_digest": result.study.digest(),
        "model": result.study.model.name,
        "model_digest": result.model_digest,
        "run_id": result.run_id,
        "rounds": len(result.history),
        "sites": [_site(content, site_id) for site_id in sorted(result.sites)],
        "global": _metrics(content.summary.overall),
        "baselines": {baseline.name: _baseline(baseline) for baseline in content.baselines},
        "privacy": {
            "mode": facts.mode,
            "unit": facts.unit,
            "epsilon": facts.epsilon,
            "delta": facts.delta,
            "promise": facts.promise,
            "clip": facts.clip,
            "sigma": facts.sigma,
            "mu": facts.mu,
            "colluders": facts.colluders,
            "n_min": facts.n_min,
            "fallback_epsilon": facts.fallback_epsilon,
            "evaluation_release": facts.release,
            "epsilon_spent": facts.epsilon_spent,
            "evaluation_epsilon_spent": facts.evaluation_epsilon_spent,
            "ledger_heads": facts.ledger_heads,
        },
        "survival_curves": [
            {
                "label": curve.label,
                "time_months": curve.time_months.tolist(),
                "survival": curve.survival.tolist(),
                "at_risk": curve.at_risk.tolist(),
            }
            for curve in content.summary.curves
        ],
        "learning_curve": [record.model_dump(mode="json") for record in result.history],
        "caveats": content.caveats,
    }


def _site(content: ReportContent, site_id: str) -> dict[str, Any]:
    state = content.result.sites[site_id]
    found: dict[str, Any] = {
        "site_id": site_id,
        "took_part": state.enrolled,
        "n": state.n_patients,
        "modalities": list(state.modalities),
        "epsilon_spent": state.epsilon_spent,
        "evaluation_epsilon_spent": state.evaluation_epsilon_spent,
    }
    if state.n_patients is None:
        found["n_reason"] = "cohort sizes are private; told only with internal evaluation"
    for name in HEADLINE:
        found |= as_json(content.metric(name, site_id), name)
    return found


def _metrics(summary: SiteSummary) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, estimate in summary.metrics.items():
        found |= as_json(estimate, name)
    for name in (*HEADLINE, "log_rank_p"):
        if name not in found:
            found |= {name: None, f"{name}_reason": "the study has no such endpoint"}
    return found


def _baseline(baseline: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = {"what": baseline.explanation}
    for name, estimate in baseline.metrics.items():
        found |= as_json(estimate, name)
    if baseline.per_site:
        found["sites"] = {
            site: {k: v for name, e in metrics.items() for k, v in as_json(e, name).items()}
            for site, metrics in baseline.per_site.items()
        }
    return found
