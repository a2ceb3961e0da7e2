"""Write the page of a comparison: arms, paired differences, ranks, hospitals, caveats."""

import math
from pathlib import Path
from typing import Any

from common.page.templates import templates
from common.storage.atomic_file import write_text
from server.report.content import DISCLAIMER
from server.report.svg import to_svg
from simulations.comparison.arm_metrics import arm_metrics
from simulations.comparison.critical_difference import MINIMUM_BLOCKS, Ranking, ranking_size
from simulations.scenario.arm_comparison import ArmComparison
from simulations.scenario.scenario_run import ScenarioResult


def write_scenario_report(comparison: ArmComparison, folder: Path) -> Path:
    """Write `comparison.html` over one or several scenarios into `folder`; return its path."""
    results = comparison.results
    page = (
        templates("simulations.scenario")
        .get_template("comparison.html.j2")
        .render(
            sections=[_section(comparison, result) for result in results],
            title=results[0].scenario.title if len(results) == 1 else "Comparison of scenarios",
            rankings=_rankings(comparison),
            minimum_blocks=MINIMUM_BLOCKS,
            disclaimer=DISCLAIMER,
            names={name: metric.title for name, metric in arm_metrics().items()},
        )
    )
    path = folder / "comparison.html"
    write_text(path, page)
    return path


def scenario_json(result: ScenarioResult) -> dict[str, Any]:
    """Return the comparison for `--json`; NaN becomes null."""
    return {
        "scenario": result.scenario.name,
        "scenario_digest": result.scenario.digest(),
        "reference": result.scenario.reference,
        "seeds": result.scenario.seeds,
        "folds": result.scenario.folds.count,
        "hospitals": result.hospitals,
        "table": [_finite(row) for row in result.table.to_dict("records")],
        "notes": list(result.notes),
    }


def _section(comparison: ArmComparison, result: ScenarioResult) -> dict[str, Any]:
    name = result.scenario.name
    metrics = [m for m in arm_metrics() if m in set(result.table["metric"])]
    tables = {
        metric: [_finite(row) for row in comparison.rows(metric, name).to_dict("records")]
        for metric in metrics
    }
    return {
        "scenario": result.scenario,
        "digest": result.scenario.digest(),
        "hospitals": result.hospitals,
        "notes": result.notes,
        "tables": tables,
        "figures": {metric: _forest(comparison, metric, result) for metric in metrics},
    }


def _forest(comparison: ArmComparison, metric: str, result: ScenarioResult) -> str:
    name, title = result.scenario.name, arm_metrics()[metric].title
    rows = comparison.rows(metric, name)[["arm", "mean"]].dropna().itertuples(index=False)
    return to_svg(
        lambda figure: comparison.plot_arms(metric, name, ax=figure.subplots()),
        (7.2, 1.1 + 0.3 * len(result.scenario.arms)),
        name=f"{name}-{metric}",
        label=f"{title}: " + "; ".join(f"{arm} {mean:.3f}" for arm, mean in rows),
    )


def _rankings(comparison: ArmComparison) -> list[dict[str, Any]]:
    return [
        {
            "name": arm_metrics()[metric].title,
            "ranking": ranking,
            "figure": _diagram(comparison, metric, ranking),
        }
        for metric, ranking in comparison.rankings.items()
    ]


def _diagram(comparison: ArmComparison, metric: str, ranking: Ranking) -> str:
    ranks = "; ".join(f"{arm} {rank:.2f}" for arm, rank in ranking.ranks.items())
    return to_svg(
        lambda figure: comparison.plot_ranks(metric, ax=figure.subplots()),
        ranking_size(ranking),
        name=f"ranks-{metric}",
        label=f"{arm_metrics()[metric].title}, mean ranks: {ranks}",
    )


def _finite(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
