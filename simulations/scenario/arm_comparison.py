"""Compare the arms of finished scenarios: differences, ranks over hospitals, figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from common.errors import ConfigError
from common.metrics.catalogue import headlines
from common.metrics.tables.estimate import Estimate, not_estimable
from common.storage.atomic_file import whole_or_nothing
from server.report.forest_plot import ForestRow, ForestScale, plot_forest
from simulations.comparison.arm_metrics import arm_metrics, hospital_metrics, tidy
from simulations.comparison.critical_difference import Ranking, plot_ranking, rank_arms
from simulations.scenario.scenario_run import ScenarioResult

SIGNIFICANT = 0.05
AXIS = "mean over folds and seeds; bars: one standard deviation of a fold"


@dataclass(frozen=True)
class ArmComparison:
    """Arms of one or several scenarios, each against the reference of its scenario.

    Attributes:
        results: The finished scenarios.
        table: One row per scenario, metric and arm: `mean`, `sd`, and against the reference
            `difference`, `ci_low`, `ci_high`, `p_value`, `n_cells`, `p_holm` and a `verdict` in
            words (corrected resampled t, Nadeau and Bengio, 2003; Holm over the arms).
        hospitals: One row per scenario, arm and hospital: the metrics, averaged over seeds.
        rankings: Metric -> mean ranks of the arms that all scenarios share, over the hospitals of
            all (Demsar, 2006); absent with fewer than five hospitals that have a figure.
    """

    results: tuple[ScenarioResult, ...]
    table: pd.DataFrame
    hospitals: pd.DataFrame
    rankings: dict[str, Ranking]

    @property
    def ranks(self) -> pd.DataFrame:
        """One row per metric and arm: `mean_rank` (1 is best), number of hospitals, p-value."""
        rows = [
            (metric, arm, rank, ranking.n_blocks, ranking.p_value, ranking.critical_difference)
            for metric, ranking in self.rankings.items()
            for arm, rank in ranking.ranks.items()
        ]
        columns = ["metric", "arm", "mean_rank", "hospitals", "p_value", "critical_difference"]
        return pd.DataFrame(rows, columns=columns)

    def rows(self, metric: str, scenario: str | None = None) -> pd.DataFrame:
        """Return the rows of one metric and scenario (the first by default), best arm first.

        Raises:
            ConfigError: No arm has this metric in this scenario.
        """
        name = scenario or self.results[0].scenario.name
        here = (self.table["metric"] == metric) & (self.table["scenario"] == name)
        if not here.any():
            pairs = self.table[["scenario", "metric"]].drop_duplicates().to_numpy().tolist()
            raise ConfigError(
                f"no arm of '{name}' has the metric '{metric}'",
                cure="one of: " + ", ".join(f"{m} of {s}" for s, m in pairs),
            )
        low_first = arm_metrics()[metric].metric.scale.direction == "lower"
        return self.table[here].sort_values("mean", ascending=low_first, kind="stable")

    def plot_arms(
        self, metric: str = "c_index", scenario: str | None = None, *, ax: Axes | None = None
    ) -> Axes:
        """Draw the means of the arms, best on top, with one standard deviation of a fold."""
        rows = self.rows(metric, scenario)
        reference_of = {r.scenario.name: r.scenario.reference for r in self.results}
        estimates = [
            ForestRow(
                str(row["arm"]),
                _spread(row["mean"], row["sd"]),
                "overall" if row["arm"] == reference_of[row["scenario"]] else "site",
            )
            for row in rows.to_dict("records")
        ]
        ends = pd.concat([rows["mean"] - rows["sd"].fillna(0), rows["mean"] + rows["sd"].fillna(0)])
        arm_metric = arm_metrics()[metric]
        middle = arm_metric.metric.no_skill
        limits = min(middle, ends.min()) - 0.02, max(middle, ends.max()) + 0.02
        scale = ForestScale(middle, AXIS, limits)
        return plot_forest(estimates, title=arm_metric.title, scale=scale, ax=ax)

    def plot_ranks(self, metric: str = "c_index", *, ax: Axes | None = None) -> Axes:
        """Draw the mean ranks of the arms; bars join arms that do not differ at 5 %.

        Raises:
            ConfigError: The arms are not ranked by this metric.
        """
        if metric not in self.rankings:
            raise ConfigError(
                f"the arms are not ranked by '{metric}'",
                why="ranks need two arms and five hospitals in which every arm has a figure",
            )
        title = f"{arm_metrics()[metric].title}: mean ranks"
        return plot_ranking(self.rankings[metric], title=title, ax=ax)

    def write(self, folder: Path) -> None:
        """Write `results.parquet` and `results.csv`: one row per figure of a cell or hospital."""
        groups = dict(list(self.hospitals.groupby("scenario")))
        tables = []
        for result in self.results:
            name = result.scenario.name
            tables.append(tidy(result.cells, groups[name].drop(columns="scenario"), name))
        table = pd.concat(tables, ignore_index=True)
        with whole_or_nothing(folder / "results.parquet") as partial:
            table.to_parquet(partial, index=False)
        with whole_or_nothing(folder / "results.csv") as partial:
            table.to_csv(partial, index=False)


def compare(*results: ScenarioResult, reference: str | None = None) -> ArmComparison:
    """Return the comparison of all arms of one or several finished scenarios.

    Args:
        results: What `simulate` or `run_scenario` returned; scenarios of different names.
        reference: Arm the others are compared with; each scenario's own by default.

    Raises:
        ConfigError: No result, two scenarios of one name, or no such arm.
    """
    names = [result.scenario.name for result in results]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            "a comparison needs finished scenarios of different names",
            where=", ".join(names),
            cure="give simulate(..., name=...) another name",
        )
    if reference is not None:
        results = tuple(result.against(reference) for result in results)
    table = pd.concat(
        [r.table.assign(scenario=r.scenario.name) for r in results], ignore_index=True
    )
    table["verdict"] = [verdict(row) for row in table.to_dict("records")]
    hospitals = pd.concat(
        [hospital_metrics(r.predictions).assign(scenario=r.scenario.name) for r in results],
        ignore_index=True,
    )
    return ArmComparison(tuple(results), table, hospitals, _rankings(results, hospitals))


def verdict(row: dict[Any, Any]) -> str:
    """Return in words what the corrected interval of a difference says; empty without one."""
    p = row.get("p_holm")
    if p is None or not np.isfinite(p):
        return ""
    if p >= SIGNIFICANT:
        return "no difference shown"
    scale = arm_metrics()[row["metric"]].metric.scale
    return "better" if scale.merit(row["difference"]) > 0 else "worse"


def _rankings(results: tuple[ScenarioResult, ...], hospitals: pd.DataFrame) -> dict[str, Ranking]:
    shared = set.intersection(*({arm.name for arm in r.scenario.arms} for r in results))
    blocks = hospitals[hospitals["arm"].isin(shared)]
    rankings = {}
    for metric in headlines():
        wide = blocks.pivot_table(
            index=["scenario", "hospital"], columns="arm", values=metric.name, dropna=False
        )
        ranking = rank_arms(wide.map(metric.scale.merit))
        if ranking is not None:
            rankings[metric.name] = ranking
    return rankings


def _spread(mean: float, sd: float) -> Estimate:
    if not np.isfinite(mean):
        return not_estimable("no fold has a figure")
    return Estimate(mean, ci_low=mean - sd, ci_high=mean + sd) if sd >= 0 else Estimate(mean)
