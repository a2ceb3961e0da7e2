"""Run one study over a whole local consortium, from start to report, and compare all logs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from common.commands.cli_output import Output
from common.errors import RunError
from common.privacy.plan import Mode
from server.operate.run_control import follow_run, request_run
from server.operate.run_folder import RunFolder
from simulations.consortium.consortium_check import Agreement, check_agreement
from simulations.consortium.local_consortium import (
    LocalConsortium,
    local_study,
    make_consortium,
    running,
)
from simulations.synthetic.spec import demo_spec


@dataclass(frozen=True)
class ConsortiumDemo:
    """What a run over a local consortium left.

    Attributes:
        page: The report.
        seconds: Step -> seconds it took.
        agreements: What was compared.
    """

    page: Path
    seconds: dict[str, float]
    agreements: list[Agreement]


def run_local_consortium(
    root: Path,
    *,
    sites: int = 3,
    patients: int = 60,
    rounds: int = 20,
    mode: Mode = "distributed",
    output: Output,
) -> ConsortiumDemo:
    """Provision, start, join, train to the report, compare all logs, and end everything.

    Args:
        root: New folder for coordinator and hospitals.
        sites: Hospitals.
        patients: Patients per hospital.
        rounds: Rounds of training.
        mode: Privacy mode of training.
        output: Where progress is shown.

    Raises:
        ConfigError: The folder holds a consortium already, or a process does not start.
        RunError: The run failed, or logs disagree.
    """
    clock = {"start": time.monotonic()}
    output.say("1/4 Certificate authority, keys, site kits; SYNTHETIC hospitals")
    spec = demo_spec(sites=sites, patients=patients)
    consortium = make_consortium(root.resolve(), spec)
    study = local_study(
        consortium,
        spec,
        mode=mode,
        rounds=rounds,
        quorum={"min_sites": min(3, sites), "round_timeout_s": 120.0},
    )
    run = consortium.agree(study)
    clock["provision"] = time.monotonic()
    output.say(f"2/4 SuperLink at {consortium.folder.consortium().listen}, then every hospital")
    with running(consortium):
        clock["start processes"] = time.monotonic()
        output.say(f"3/4 {rounds} rounds in mode {mode}")
        request_run(consortium.folder, run)
        page = follow_run(run, output)
        clock["train and evaluate"] = time.monotonic()
        agreements = _compare(consortium, run, output)
    clock["end processes"] = time.monotonic()
    times = list(clock.items())
    seconds = {
        name: round(at - before, 1)
        for (name, at), (_, before) in zip(times[1:], times, strict=False)
    }
    return ConsortiumDemo(page, seconds, agreements)


def _compare(consortium: LocalConsortium, run: RunFolder, output: Output) -> list[Agreement]:
    output.say("4/4 Status, ledgers and audit logs of both sides")
    output.say(consortium.command("server", "status", str(consortium.folder.root)))
    agreements = check_agreement(consortium, run)
    for agreement in agreements:
        output.say(str(agreement))
    if not all(agreement.holds for agreement in agreements):
        raise RunError(
            "the records of the run disagree",
            where=str(run.path),
            why="; ".join(str(a) for a in agreements if not a.holds),
        )
    return agreements
