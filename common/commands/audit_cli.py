"""An auditor's commands: verify ledgers and audit logs, recompute what was spent.

Nothing here needs access to patients; a copy of the ledger is enough.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ConfigError, ErrorCode, LedgerError
from common.trust.audit_log import head_path, read_audit
from common.trust.audit_record import damaged
from common.trust.signature import PUBLIC_KEY

if TYPE_CHECKING:
    from common.ledger.recompose import Recomposed

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
log_app = typer.Typer(
    no_args_is_help=True,
    help="Check an audit log offline: every hash, the chain, every signature.",
    rich_markup_mode=None,
)
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
    undercharged = max((account.undercharged for account in accounts), default=0)
    if undercharged:
        output.say(f"{undercharged} releases were charged less than their recorded noise costs.")
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


@log_app.callback()
def log() -> None:
    """Check what a coordinator or a hospital says it did."""


@log_app.command(
    epilog="Example: tumorboard audit log verify consortium/audit.jsonl "
    "--key 6f1d2c...  (audit_key of connection.yaml, or a hospital's key of the roster)"
)
def verify(
    path: Annotated[Path, typer.Argument(help="The audit log, or a copy of it.")],
    key: Annotated[
        str | None,
        typer.Option(help="Public key of its owner, hex, or a file that holds it."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="A head noted elsewhere; the chain must contain it.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check every line of an audit log; exit status 3 if it was changed or cut off.

    Without --key the log is checked against the key it names itself.
    """
    public_key = None if key is None else _public_key(key)
    records = read_audit(path, public_key)
    if head is not None and head not in {record.sha256 for record in records}:
        raise damaged("the audit log lacks the head noted elsewhere", str(path))
    last = records[-1]
    events = Counter(record.event for record in records)
    refusals = Counter(record.code for record in records if record.code)
    output = Output(json_output)
    output.say(f"{len(records)} lines of {last.actor}; chain and signatures are whole.")
    output.say(f"Signed by {last.key}" + ("" if public_key else " (not compared: pass --key)"))
    output.say(f"Head: {last.sha256}")
    unread = path.stat().st_size - sum(len(record.line()) for record in records)
    if unread:
        output.say(f"{unread} bytes after it are no complete line: a power cut, or added by hand.")
    if head is None:
        beside = (
            "" if head_path(path).exists() else f" There is no {head_path(path).name} beside it."
        )
        output.say(f"Only a remembered head shows lines cut off the end: --head.{beside}")
    output.table("Events", ("event", "lines"), sorted(events.items()))
    if refusals:
        output.table("Refused", ("code", "lines"), sorted(refusals.items()))
    output.result(
        {
            "actor": last.actor,
            "lines": len(records),
            "head": last.sha256,
            "key": last.key,
            "key_compared": public_key is not None,
            "head_compared": head is not None,
            "head_file": head_path(path).exists(),
            "unread_bytes": unread,
            "first": records[0].time,
            "last": last.time,
            "events": dict(events),
            "refused": dict(refusals),
        }
    )


def _public_key(key: str) -> str:
    path = Path(key)
    try:
        text = path.read_text("ascii").strip() if path.is_file() else key.strip().lower()
    except (OSError, ValueError):
        text = ""
    if re.match(PUBLIC_KEY, text):
        return text
    raise ConfigError(
        "this is no public key",
        where="--key",
        why="a public key has 64 hexadecimal digits",
        cure="take audit_key of connection.yaml, or public_key of `tumorboard server roster`",
    )
