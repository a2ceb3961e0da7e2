"""The page of a comparison: arms side by side, paired differences, hospitals, caveats."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from common.atomic_file import write_text
from server.report.content import DISCLAIMER
from server.report.svg import BLUE, GREY, INK, figure, to_svg
from simulations.scenario_run import ScenarioResult

METRIC_NAMES = {
    "c_index": "Harrell's C, all test patients",
    "c_index_within": "Harrell's C, pairs inside a hospital",
    "response_auc": "Response ROC AUC, all test patients",
}


def write_scenario_report(result: ScenarioResult, folder: Path) -> Path:
    """Write `comparison.html` into `folder` and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("simulations"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    metrics = [m for m in METRIC_NAMES if m in set(result.table["metric"])]
    page = environment.get_template("comparison.html.j2").render(
        scenario=result.scenario,
        digest=result.scenario.digest(),
        hospitals=result.hospitals,
        notes=result.notes,
        disclaimer=DISCLAIMER,
        names=METRIC_NAMES,
        tables={m: _rows(result.table, m) for m in metrics},
        figures={m: _forest(result, m) for m in metrics},
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


def _rows(table: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    return [_finite(row) for row in table[table["metric"] == metric].to_dict("records")]


def _finite(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _forest(result: ScenarioResult, metric: str) -> str:
    rows = _rows(result.table, metric)
    with figure(7.2, 1.1 + 0.32 * len(rows)) as made:
        axis = made.subplots()
        for y, row in enumerate(reversed(rows)):
            is_reference = row["arm"] == result.scenario.reference
            colour = INK if is_reference else BLUE
            if row["mean"] is not None:
                spread = row["sd"] or 0.0
                axis.plot(
                    [row["mean"] - spread, row["mean"] + spread], [y, y], color=colour, lw=1.6
                )
                axis.plot([row["mean"]], [y], "D" if is_reference else "o", color=colour, ms=6)
        axis.axvline(0.5, color=GREY, lw=1, ls=":")
        axis.set_yticks(range(len(rows)), [row["arm"] for row in reversed(rows)])
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("mean over folds and seeds; bars: one standard deviation of a fold")
        axis.set_title(METRIC_NAMES[metric])
        label = "; ".join(
            f"{row['arm']} {row['mean']:.3f}" for row in rows if row["mean"] is not None
        )
        return to_svg(made, name=f"arms-{metric}", label=f"{METRIC_NAMES[metric]}: {label}")
