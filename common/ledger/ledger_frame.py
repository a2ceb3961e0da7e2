"""Show a privacy ledger as a pandas frame: one row per release, with the budget spent so far."""

from pathlib import Path

import pandas as pd

from common.ledger.ledger_budget import affected, composed_spend
from common.ledger.ledger_entry import SpendEntry
from common.ledger.ledger_file import read_ledger
from common.ledger.ledger_state import LedgerState


def read_ledger_frame(path: Path | str, *, delta: float = 1e-5) -> pd.DataFrame:
    """Return the releases of a verified ledger that count, oldest first; nothing is changed.

    Columns: `line` (from 1), `time` (UTC), `study_digest`, `run_id`, `round`, `purpose`,
    `partition` (whose patients paid), `mechanism`, `mu_squared`, `state` (`open` or `committed`)
    and `epsilon`: composed over all releases so far that these patients paid for, in any study.
    An exact release (mechanism `none`) has no epsilon and adds none.

    Args:
        path: `ledger.jsonl` of a hospital, or an exported copy.
        delta: Delta of all epsilons.

    Raises:
        LedgerError: There is no ledger, or its chain is broken or cut off.
    """
    records = read_ledger(Path(path))
    spends: dict[str, list[SpendEntry]] = {}
    rows = []
    for reservation in LedgerState(records, str(path)).reservations():
        entry = reservation.entry
        for partition in affected(entry.partition):
            spends.setdefault(partition, []).extend([entry] * (entry.mechanism != "none"))
        rows.append(
            {
                "line": reservation.sequence + 1,
                "time": pd.Timestamp(records[reservation.sequence].time),
                **entry.model_dump(include=set(_COLUMNS)),
                "state": reservation.state,
                "epsilon": max(composed_spend(spends[p], delta) for p in affected(entry.partition)),
            }
        )
    return pd.DataFrame(rows, columns=["line", "time", *_COLUMNS, "state", "epsilon"])


_COLUMNS = (
    *("study_digest", "run_id", "round", "purpose"),
    *("partition", "mechanism", "mu_squared"),
)
