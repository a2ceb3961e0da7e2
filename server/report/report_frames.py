"""Read `report.json` as pandas frames, and draw it on matplotlib axes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from common.errors import ConfigError
from common.metrics.catalogue import headlines
from common.metrics.survival.calibration import Reliability, ReliabilityGroup
from common.metrics.survival.kaplan_meier import SurvivalCurve
from common.metrics.tables.estimate import Estimate
from common.registry import Registry
from server.report.forest_plot import ForestRow, plot_forest, value_scale
from server.report.performance_plots import plot_calibration, plot_learning, plot_roc
from server.report.survival_plot import SIZE, plot_survival
from server.report.svg import new_axes
from server.session.checkpoint import RoundRecord

TWIN = "report.json"
ENDINGS = ("_reason", "_caveat", "_ci", "_error_bound", "_noise_sd")
"""What stands beside a metric of the twin, under its name."""

_LOOKS = {"all": "overall", "hospital": "site", "baseline": "baseline"}


@dataclass(frozen=True)
class Report:
    """A finished run as its report presents it.

    Attributes:
        content: What `report.json` holds.
    """

    content: dict[str, Any]

    def __repr__(self) -> str:
        """Return study, run and the disclaimer's first words."""
        synthetic = ", SYNTHETIC patients" if self.content["synthetic"] else ""
        return f"Report of {self.content['study_id']}, run {self.content['run_id']}{synthetic}"

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per metric of the federation, a hospital, all but one hospital, or a baseline.

        Columns: `scope` (`all`, `hospital`, `without`, `baseline`), `name`, `metric`, `value`,
        `ci_low`, `ci_high` (95 %) and `note`: a caveat, or why there is no value.
        """
        table = pd.DataFrame(self._metric_rows())
        return table.astype({"value": float, "ci_low": float, "ci_high": float})

    @property
    def hospitals(self) -> pd.DataFrame:
        """One row per hospital: part in the run, patients where permitted, epsilon spent."""
        rows = pd.DataFrame(self.content["sites"]).set_index("site_id")
        columns = ("took_part", "n", "rounds", "share_of_training_patients", "epsilon_spent")
        return rows[[*columns, "evaluation_epsilon_spent"]]

    @property
    def learning_curve(self) -> pd.DataFrame:
        """One row per round: sites, norm of the change, loss, as the run recorded them."""
        return pd.DataFrame(self.content["learning_curve"]).set_index("round")

    @property
    def survival_curves(self) -> pd.DataFrame:
        """One row per risk group and time: survival with its 95 % band and patients at risk."""
        curves = [pd.DataFrame(curve) for curve in self.content["survival_curves"]]
        return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()

    @property
    def calibration(self) -> pd.DataFrame:
        """One row per outcome and group of neighbouring scores: predicted and observed."""
        groups = self.content["calibration"]
        tables = [pd.DataFrame(rows).assign(outcome=name) for name, rows in groups.items()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    @property
    def privacy(self) -> pd.Series[Any]:
        """Mode, budget and mechanism of the run."""
        return pd.Series(self.content["privacy"], dtype=object)

    def plot_learning(self, metric: str = "update_norm", *, ax: Axes | None = None) -> Axes:
        """Draw a figure of the rounds, one of `server.session.round_metrics.ROUND_METRICS`.

        Raises:
            ConfigError: There is no such figure.
        """
        history = [RoundRecord.model_validate(row) for row in self.content["learning_curve"]]
        return plot_learning(history, metric, ax=ax)

    def plot_metric(self, metric: str = "c_index", *, ax: Axes | None = None) -> Axes:
        """Draw a metric with 95 % intervals: the federation, each hospital, the baselines.

        Raises:
            ConfigError: Models are not compared by this metric.
        """
        known = [known for known in headlines() if known.name in self.content["global"]]
        entry = Registry("metric of this report", known).get(metric)
        shown = [
            ForestRow(row["name"], _estimate(**row), _LOOKS[row["scope"]])
            for row in self._metric_rows()
            if row["metric"] == metric and row["scope"] in _LOOKS
        ]
        return plot_forest(shown, title=entry.label, scale=value_scale(entry), ax=ax)

    def plot_survival(self, *, ax: Axes | None = None) -> Axes:
        """Draw Kaplan-Meier curves by predicted risk with 95 % bands.

        Raises:
            ConfigError: The report has none.
        """
        curves = self._drawn("survival_curves")
        p_value = Estimate(self.content["global"].get("log_rank_p"))
        ax = ax or new_axes(*SIZE)[0]
        return plot_survival([_curve(**curve) for curve in curves], p_value=p_value, ax=ax)

    def plot_calibration(self, outcome: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw predicted against observed of an outcome of `calibration`, by default the first.

        Raises:
            ConfigError: The report has no such outcome.
        """
        tables = self._drawn("calibration")
        name = next(iter(tables)) if outcome is None else outcome
        if name not in tables:
            raise ConfigError(f"no outcome '{name}'", cure=f"use one of: {', '.join(tables)}")
        groups = [ReliabilityGroup(**group) for group in tables[name]]
        return plot_calibration(Reliability(name.replace("_", " "), groups), ax=ax)

    def plot_roc(self, *, ax: Axes | None = None) -> Axes:
        """Draw the ROC curve of the response.

        Raises:
            ConfigError: The report has none.
        """
        rates = self._drawn("roc")
        return plot_roc((rates["false_positive_rate"], rates["true_positive_rate"]), ax=ax)

    def _drawn(self, part: str) -> Any:
        """Return a part of the report that is drawn."""
        if not self.content[part]:
            raise ConfigError(
                f"this report has no {part.replace('_', ' ')}",
                why="the study lacks the outcome, or too few held-out patients had it",
            )
        return self.content[part]

    def _metric_rows(self) -> Iterator[dict[str, Any]]:
        content, everything = self.content, self.content["global"]
        groups: list[tuple[str, str, Mapping[str, Any]]] = [("all", "federated", everything)]
        groups += [("hospital", site["site_id"], site) for site in content["sites"]]
        groups += [("without", name, values) for name, values in content["leave_one_out"].items()]
        groups += [("baseline", name, values) for name, values in content["baselines"].items()]
        notes = {f"{name}{ending}" for name in everything for ending in ENDINGS}
        for scope, name, values in groups:
            for metric in (key for key in everything if key in values and key not in notes):
                low, high = values.get(f"{metric}_ci", (None, None))
                yield {
                    "scope": scope,
                    "name": name,
                    "metric": metric,
                    "value": values[metric],
                    "ci_low": low,
                    "ci_high": high,
                    "note": values.get(f"{metric}_reason", values.get(f"{metric}_caveat")),
                }


def _estimate(value: float | None, ci_low: float, ci_high: float, **_: str) -> Estimate:
    return Estimate(value, ci_low=ci_low, ci_high=ci_high)


def _curve(label: str, **values: Sequence[float]) -> SurvivalCurve:
    """Return a curve as far as `report.json` tells it, which is without its deaths."""
    arrays = {name: np.array(column, np.float64) for name, column in values.items()}
    return SurvivalCurve(label, **arrays, events=np.zeros(0), error_bound=np.nan, n_patients=0)


def read_report(path: Path | str) -> Report:
    """Return the report of a finished run.

    Args:
        path: `report.json`, or the folder it is in.

    Raises:
        ConfigError: There is no report, or the file is none.
    """
    file = Path(path) / TWIN if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no report", where=str(file), cure="finish the run, or correct the path"
        ) from None
    except ValueError as error:
        raise ConfigError("the file is not JSON", where=str(file), why=str(error)) from None
    if not isinstance(content, dict) or not {"run_id", "global", "sites"} <= content.keys():
        raise ConfigError(
            "the file is no report", where=str(file), cure=f"give the {TWIN} of a finished run"
        )
    return Report(content)
