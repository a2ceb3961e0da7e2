"""Run one study over a whole local consortium, from start to report, and compare all logs."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client.site.identity import load_identity, public_key
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.errors import RunError
from common.ledger.ledger import Ledger, LedgerBudgets
from common.privacy.plan import Mode
from common.study.study import Study
from common.trust.audit_log import read_audit
from common.trust.audit_record import AuditRecord
from server.operate.run_control import follow_run, request_run
from server.operate.run_folder import RunFolder
from server.session.checkpoint import RoundRecord, load_checkpoint
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
    agreements: "list[Agreement]"


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


def _compare(consortium: LocalConsortium, run: RunFolder, output: Output) -> "list[Agreement]":
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


TOLERANCE = 1e-9


@dataclass(frozen=True)
class Agreement:
    """One comparison.

    Attributes:
        what: What was compared.
        holds: Whether it agrees.
        seen: What was found, for people.
    """

    what: str
    holds: bool
    seen: str = ""

    def __str__(self) -> str:
        """Return the comparison as one line."""
        return f"{'agree' if self.holds else 'DIFFER'}  {self.what}: {self.seen}"


def check_agreement(consortium: LocalConsortium, run: RunFolder) -> list[Agreement]:
    """Return every comparison of what a finished run left behind.

    Compared are the coordinator's checkpoint, its state, report and signed audit log, and each
    hospital's ledger and signed audit log: different processes wrote them.

    Raises:
        LedgerError: A ledger or an audit log does not verify.
        RunError: The checkpoint is damaged.
    """
    study = Study.from_yaml(run.study_file)
    checkpoint = load_checkpoint(run.path / "checkpoints")
    history = checkpoint.history if checkpoint is not None else []
    folder = consortium.folder
    log = [
        r
        for r in read_audit(folder.audit, folder.audit_public_key())
        if r.run == str(getattr(run.state(), "run_id", ""))
    ]
    checks = list(_coordinator(run, study, history, log))
    for site_id, home in consortium.sites.items():
        checks += _site(run, study, site_id, home, history, log)
    return checks


def _coordinator(
    run: RunFolder, study: Study, history: list[RoundRecord], log: list[AuditRecord]
) -> Iterator[Agreement]:
    state = run.state()
    rounds = study.training.rounds
    state_text = f"{state.phase if state else 'no state'}, {len(history)} rounds of {rounds}"
    is_done = state is not None and state.phase == "done" and state.round == rounds
    yield Agreement("status and checkpoint", is_done and len(history) == rounds, state_text)
    site_lists = {r.round: str(r.facts["sites"]) for r in log if r.event == "round_committed"}
    same = all(site_lists.get(h.round, ",".join(h.sites)) == ",".join(h.sites) for h in history)
    starts = [r for r in log if r.event == "run_started"]
    n_missing = rounds - len(
        site_lists
    )  # a server killed between checkpoint and log; the next start says so
    yield Agreement(
        "coordinator's audit log and checkpoint",
        same and n_missing < len(starts),
        f"{len(site_lists)} rounds logged, {len(starts)} starts",
    )
    report = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    same = state is not None and report["rounds"] == rounds and report["run_id"] == state.run_id
    yield Agreement("report and status", same, f"{report['rounds']} rounds")


def _site(
    run: RunFolder,
    study: Study,
    site_id: str,
    home: Path,
    history: list[RoundRecord],
    log: list[AuditRecord],
) -> Iterator[Agreement]:
    policy, state = load_policy(home), run.state()
    key = public_key(load_identity(policy.identity_key))
    run_id = state.run_id if state else ""
    calls = [
        r
        for r in read_audit(policy.state.parent / "audit.jsonl", key)
        if r.run == run_id and r.facts.get("method") == "train" and not r.code
    ]
    digests = {r.round: r.facts.get("model_digest") for r in calls}
    counting = {h.round for h in history if site_id in h.sites}
    yield Agreement(
        f"{site_id}: its audit log and the rounds it counts in",
        counting <= set(digests),
        f"{len(counting)} rounds, {len(calls)} calls",
    )
    models = {(r.round or 0) + 1: r.facts["model"] for r in log if r.event == "round_committed"}
    both = set(models) & set(digests)
    yield Agreement(
        f"{site_id}: models it was sent and models the coordinator committed",
        all(models[number] == digests[number] for number in both),
        f"{len(both)} models",
    )
    if study.privacy.is_private:
        yield _ledger(
            study, site_id, home, counting, state.sites[site_id].epsilon_spent if state else 0
        )


def _ledger(study: Study, site_id: str, home: Path, counting: set[int], status: float) -> Agreement:
    policy = load_policy(home)
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    ledger.verify()
    spends = [r.entry.round for r in ledger.reservations() if r.entry.partition == "train"]
    epsilon = ledger.epsilon(study.digest(), "train", study.privacy.delta)
    once = len(spends) == len(set(spends)) and counting <= set(spends)
    within = epsilon <= study.privacy.epsilon + TOLERANCE
    return Agreement(
        f"{site_id}: its ledger, the status, and the budget",
        once and within and abs(epsilon - status) < 1e-6,
        f"{len(spends)} spends, epsilon {epsilon:.6g} of {study.privacy.epsilon:g}",
    )
