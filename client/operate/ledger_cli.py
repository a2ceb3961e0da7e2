"""A hospital's record of spent privacy: show it, verify it, copy it, correct it.

`release` and `reconcile` are the administrator's: they add lines and never remove any.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from client import operate
from client.operate.options import SiteOption
from common.commands.cli_output import Output
from common.commands.options import JsonOption

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)

ByOption = Annotated[str, typer.Option("--by", help="Who decides; recorded in the ledger.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Reason; recorded in the ledger.")]


@app.command(epilog="Example: tumorboard site ledger show --site hospital-a")
def show(site: SiteOption, json_output: JsonOption = False) -> None:
    """Show what was spent, what is left, and reservations without a reply."""
    view = operate.ledger_view(operate.load_policy(site))
    output = Output(json_output)
    output.say(f"{view.lines} lines, head {view.head}")
    output.table(
        f"Spent at delta {view.delta:g}",
        ("study", "patients", "releases", "exact", "epsilon", "all collude", "left", "in"),
        [
            (
                (a.study_digest or "all")[:12],
                a.partition,
                a.releases,
                a.exact,
                a.epsilon,
                a.fallback_epsilon,
                a.left,
                a.currency,
            )
            for a in view.accounts
        ],
    )
    for reservation in view.open:
        entry = reservation.entry
        output.say(
            f"Open: line {reservation.sequence + 1}, {entry.purpose} of round {entry.round} in "
            f"run {entry.run_id}; it counts as spent."
        )
    output.result(view.as_dict())


@app.command(epilog="Example: tumorboard site ledger verify --site hospital-a")
def verify(site: SiteOption, json_output: JsonOption = False) -> None:
    """Check every hash of the chain and the head file; change nothing."""
    policy = operate.load_policy(site)
    records = operate.read_ledger(policy.ledger)
    operate.LedgerState(records, str(policy.ledger))
    output = Output(json_output)
    output.say(f"{len(records)} lines verified; head {records[-1].sha256}")
    output.result({"lines": len(records), "head": records[-1].sha256, "chain": "whole"})


@app.command(epilog="Example: tumorboard site ledger export copy.jsonl --site hospital-a")
def export(
    to: Annotated[Path, typer.Argument(help="The copy; it must not exist.")],
    site: SiteOption,
    json_output: JsonOption = False,
) -> None:
    """Write a verified copy, for a backup or an auditor; it names no patient."""
    records = operate.export_ledger(operate.load_policy(site), to)
    output = Output(json_output)
    output.say(f"Written: {to}, {len(records)} lines, head {records[-1].sha256}")
    output.result({"written": str(to), "lines": len(records), "head": records[-1].sha256})


@app.command(
    epilog="Example: tumorboard site ledger release 12 --site hospital-a "
    '--by "M. Roe" --reason "no GPU"'
)
def release(
    line: Annotated[int, typer.Argument(min=1, help="Line of the open reservation.")],
    site: SiteOption,
    by: ByOption,
    reason: ReasonOption,
    json_output: JsonOption = False,
) -> None:
    """Give back an open reservation that was certainly never computed."""
    operate.release_reservation(operate.load_policy(site), line - 1, by=by, reason=reason)
    output = Output(json_output)
    output.say(f"Line {line} no longer counts; the ledger records who decided it.")
    output.result({"released": line})


@app.command(
    epilog="Example: tumorboard site ledger reconcile --site hospital-a --lost-head 5be1... "
    '--study 91c0... --charge-epsilon 1.0 --by "M. Roe" --reason "restored from backup"'
)
def reconcile(
    site: SiteOption,
    study: Annotated[str, typer.Option(help="Digest of the lost lines' study.")],
    charge_epsilon: Annotated[
        float, typer.Option(min=1e-6, help="Epsilon to be assumed spent in the lost lines.")
    ],
    by: ByOption,
    reason: ReasonOption,
    partition: Annotated[
        Literal["train", "held_out", "validation"], typer.Option(help="Whose patients.")
    ] = "train",
    lost_head: Annotated[str | None, typer.Option(help="Head that the server remembers.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Accept a ledger that was restored from a backup, and charge for what was lost."""
    record = operate.reconcile_ledger(
        operate.load_policy(site),
        study_digest=study,
        partition=partition,
        epsilon=charge_epsilon,
        lost_head=lost_head,
        by=by,
        reason=reason,
    )
    output = Output(json_output)
    output.say(f"Line {record.sequence + 1} accepts the ledger; head {record.sha256}")
    output.result({"line": record.sequence + 1, "head": record.sha256})
