"""Read `report.json` as pandas frames."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import ConfigError

TWIN = "report.json"
ENDINGS = ("_reason", "_caveat", "_ci", "_error_bound", "_noise_sd")
"""What stands beside a metric of the twin, under its name."""


@dataclass(frozen=True)
class Report:
    """A finished run as its report tells it.

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
        """One row per hospital: part in the run, patients where they may be told, epsilon spent."""
        rows = pd.DataFrame(self.content["sites"]).set_index("site_id")
        shown = ("took_part", "n", "rounds", "share_of_training_patients", "epsilon_spent")
        return rows[[*shown, "evaluation_epsilon_spent"]]

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

    def _metric_rows(self) -> Iterator[dict[str, object]]:
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


def read_report(path: Path | str) -> Report:
    """Return the report of a finished run.

    Args:
        path: `report.json`, or the folder it lies in.

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
