"""An auditor's commands: verify ledgers and audit logs, recompute what was spent.

Nothing here needs access to patients; a copy of the ledger is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.commands.audit_log_cli import app as log_app
from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ErrorCode, LedgerError

if TYPE_CHECKING:
    from common.ledger.recompose import Recomposed

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
app.add_typer(log_app, name="log")


@app.callback()
def audit() -> None:
    """Verify what hospitals say they spent."""


@app.command(epilog="Example: tumorboard audit ledger hospital-a-ledger.jsonl --json")
def ledger(
    path: Annotated[Path, typer.Argument(help="The ledger, or an exported copy.")],
    delta: Annotated[float, typer.Option(help="Delta of all epsilons.")] = 1e-5,
    head: Annotated[
        str | None, typer.Option(help="A head noted elsewhere; the chain must contain it.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check every hash, replay every spend, and compare three accountants.

    `all collude` is the epsilon left if the server and all other hospitals work together.
    """
    from common.ledger.ledger_file import read_ledger
    from common.ledger.recompose import recompose

    records = read_ledger(path)
    if head is not None and head not in {record.sha256 for record in records}:
        raise LedgerError(
            "the ledger lacks the head noted elsewhere",
            where=str(path),
            why="lines were taken out, or it is another ledger",
            cure="ask the hospital for its current ledger",
            code=ErrorCode.LEDGER_ROLLBACK,
        )
    accounts = recompose(records, delta, where=str(path))
    agree = all(account.agree for account in accounts)
    output = Output(json_output)
    output.say(f"{len(records)} lines of site {records[0].site_id}; the chain is whole.")
    output.say(f"Head: {records[-1].sha256}")
    output.table(f"Spent at delta {delta:g}", list(_COLUMNS), [_row(a) for a in accounts])
    output.result(
        {
            "site_id": records[0].site_id,
            "lines": len(records),
            "head": records[-1].sha256,
            "chain": "whole",
            "accounts": [account.as_dict() for account in accounts],
            "accountants_agree": agree,
        }
    )
    if not agree:
        output.say("The accountants disagree: do not rely on the reported epsilon.")
        raise typer.Exit(3)


_COLUMNS = {
    "study": "study_digest",
    "patients": "partition",
    "releases": "releases",
    "exact": "exact",
    "mu^2": "mu_squared",
    "epsilon": "epsilon",
    "all collude": "fallback_epsilon",
    "by PLD": "second_epsilon",
    "by PRV": "third_epsilon",
    "agree": "agree",
}
"""Heading -> field of an account."""


def _row(account: Recomposed) -> tuple[object, ...]:
    study, *others = (getattr(account, name) for name in _COLUMNS.values())
    return ((study or "all")[:12], *others)
