"""The page of one or several comparisons: arms, paired differences, ranks, hospitals, caveats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from common.storage.atomic_file import write_text
from server.report.content import DISCLAIMER
from simulations.comparison.arm_figures import difference_diagram, forest
from simulations.comparison.comparison import METRICS
from simulations.comparison.critical_difference import MINIMUM_BLOCKS, Ranking, rank_arms
from simulations.comparison.hospital_metrics import hospital_metrics
from simulations.scenario.scenario_run import ScenarioResult

SIGNIFICANT = 0.05
METRIC_NAMES = {
    "c_index": "Harrell's C, all test patients",
    "c_index_within": "Harrell's C, pairs inside a hospital",
    "response_auc": "Response ROC AUC, all test patients",
    "response_auc_within": "Response ROC AUC, pairs inside a hospital",
}


def write_scenario_report(results: Sequence[ScenarioResult], folder: Path) -> Path:
    """Write `comparison.html` over one or several scenarios into `folder`; return its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("simulations.scenario"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("comparison.html.j2").render(
        sections=[_section(result) for result in results],
        title=results[0].scenario.title if len(results) == 1 else "Comparison of scenarios",
        rankings=_rankings(results),
        minimum_blocks=MINIMUM_BLOCKS,
        disclaimer=DISCLAIMER,
        names=METRIC_NAMES,
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


def rankings(results: Sequence[ScenarioResult]) -> dict[str, Ranking]:
    """Return metric -> ranking of the arms that all scenarios have, over their hospitals."""
    blocks = pd.concat(
        [hospital_metrics(r.predictions).assign(scenario=r.scenario.name) for r in results]
    )
    shared = set.intersection(*({arm.name for arm in r.scenario.arms} for r in results))
    blocks = blocks[blocks["arm"].isin(shared)]
    found = {}
    for metric in METRICS:
        wide = blocks.pivot_table(
            index=["scenario", "hospital"], columns="arm", values=metric, dropna=False
        )
        ranking = rank_arms(wide)
        if ranking is not None:
            found[metric] = ranking
    return found


def verdict(row: dict[str, Any]) -> str:
    """Return in words what the corrected interval of a difference says."""
    p = row.get("p_holm")
    if row.get("difference") is None or p is None:
        return ""
    if p >= SIGNIFICANT:
        return "no difference shown"
    return "better" if row["difference"] > 0 else "worse"


def _section(result: ScenarioResult) -> dict[str, Any]:
    name = result.scenario.name
    metrics = [m for m in METRIC_NAMES if m in set(result.table["metric"])]
    tables = {m: _rows(result.table, m) for m in metrics}
    return {
        "scenario": result.scenario,
        "digest": result.scenario.digest(),
        "hospitals": result.hospitals,
        "notes": result.notes,
        "tables": tables,
        "figures": {
            m: forest(rows, result.scenario.reference, title=METRIC_NAMES[m], name=f"{name}-{m}")
            for m, rows in tables.items()
        },
    }


def _rankings(results: Sequence[ScenarioResult]) -> list[dict[str, Any]]:
    return [
        {
            "name": METRIC_NAMES[metric],
            "ranking": ranking,
            "figure": difference_diagram(
                ranking, title=f"{METRIC_NAMES[metric]}: mean ranks", name=f"ranks-{metric}"
            ),
        }
        for metric, ranking in rankings(results).items()
    ]


def _rows(table: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    found = [_finite(row) for row in table[table["metric"] == metric].to_dict("records")]
    best_first = sorted(found, key=lambda row: -(row["mean"] if row["mean"] is not None else -1.0))
    return [row | {"verdict": verdict(row)} for row in best_first]


def _finite(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
