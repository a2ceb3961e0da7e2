"""Check that all records of a finished run agree.

The coordinator's checkpoint, its state and report, its signed audit log; each hospital's ledger
and its own signed audit log. They are written by different processes and are compared here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client.site.identity import load_identity, public_key
from client.site.site_folder import load_policy
from common.ledger.ledger import Ledger, LedgerBudgets
from common.study.study import Study
from common.trust.audit_log import read_audit
from common.trust.audit_record import AuditRecord
from server.operate.run_folder import RunFolder
from server.session.checkpoint import RoundRecord, load_checkpoint
from simulations.consortium.local_consortium import LocalConsortium

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
    """Return every comparison of a finished run.

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
