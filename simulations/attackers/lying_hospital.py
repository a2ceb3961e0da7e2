"""Try to break the promises of a consortium as a hospital that lies, or restores its backups."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from client.site.site_folder import load_policy
from common.errors import TumorboardError
from common.ledger.ledger_file import read_ledger
from common.protocol.protocol import AgentApi
from common.study.study import Study
from simulations.attackers.altered_agent import GARBAGE, AlteredAgent, changed
from simulations.attackers.lying_coordinator import LyingAttempt
from simulations.deployed.agent_processes import AgentsOnTrial

FORGETS = {"handshake": changed(ledger_head=None)}
"""A coordinator that remembers no ledger."""


def restored_ledgers(trial: AgentsOnTrial, study: Study) -> Iterator[LyingAttempt]:
    """Restore an old ledger, then all private files, then delete it; the coordinator forgets."""
    victim = min(trial.homes)
    private = trial.homes[victim] / "private"
    for what in ("its ledger", "its ledger and state", "no ledger at all"):
        trial.stop(victim)
        backup, truth = trial.root / "backup", trial.root / "truth"
        shutil.copytree(private, backup)
        trial.start(victim)
        trial.run(study, _forgetting)
        trial.stop(victim)
        shutil.copytree(private, truth)
        _put_back(trial, victim, what)
        before = _spends(trial, victim)
        codes: set[str] = set()
        try:
            trial.start(victim)
            result = trial.run(study, _forgetting)
            codes.add(str(result.sites[victim].refusal_code or "no sum"))
        except TumorboardError as error:
            codes.add(str(error.code))
        spent_again = _spends(trial, victim) - before
        yield LyingAttempt(f"an operator restores {what}", max(spent_again, 0), frozenset(codes))
        trial.stop(victim)
        shutil.rmtree(private)
        truth.rename(private)
        shutil.rmtree(backup)
        trial.start(victim)


def garbage_in_the_sum(trial: AgentsOnTrial, study: Study) -> Iterator[LyingAttempt]:
    """Have one hospital send garbage: it must be named, and cost the others one round."""
    liar = max(trial.homes)
    for what, lie in GARBAGE.items():

        def lying(site_id: str, agent: AgentApi, lie: Any = lie) -> AgentApi:
            return AlteredAgent(agent, replies=dict([lie])) if site_id == liar else agent

        result = trial.run(study, lying)
        voids = sum(not record.sites for record in result.history)
        named = {s for r in result.history for s, c in r.dropped.items() if c == "TB511"}
        unnamed = int(named != {liar}) + max(voids - 1, 0)
        codes = frozenset({str(result.sites[liar].refusal_code)})
        yield LyingAttempt(f"one hospital sends {what}", unnamed, codes, ", ".join(sorted(named)))


def numbers_beyond_the_bound(trial: AgentsOnTrial, study: Study) -> LyingAttempt:
    """Have one hospital add numbers to its masked upload that no patients can have."""
    liar = max(trial.homes)

    def shifted(reply: Any) -> Any:
        masked = reply.arrays["masked"]
        far = (masked + np.iinfo(masked.dtype).max // 8).astype(masked.dtype)
        return reply.model_copy(update={"arrays": dict(reply.arrays) | {"masked": far}})

    def lying(site_id: str, agent: AgentApi) -> AgentApi:
        return AlteredAgent(agent, replies={"train": shifted}) if site_id == liar else agent

    taken, codes = 0, set()
    try:
        result = trial.run(study, lying)
        taken = sum(bool(record.sites) for record in result.history)
        codes |= {str(code) for record in result.history for code in record.dropped.values()}
    except TumorboardError as error:
        codes.add(str(error.code))
    return LyingAttempt("one hospital adds numbers beyond the bound", taken, frozenset(codes))


def _forgetting(_: str, agent: AgentApi) -> AgentApi:
    return AlteredAgent(agent, requests=FORGETS)


def _put_back(trial: AgentsOnTrial, victim: str, what: str) -> None:
    private, backup = trial.homes[victim] / "private", trial.root / "backup"
    if what == "its ledger and state":
        shutil.rmtree(private)
        shutil.copytree(backup, private)
        return
    for file in private.glob("ledger*"):
        file.unlink()
    if what == "its ledger":
        for file in backup.glob("ledger*"):
            shutil.copy2(file, private / file.name)


def _spends(trial: AgentsOnTrial, site_id: str) -> int:
    """Return the training rounds that a hospital's ledger holds."""
    file = load_policy(trial.homes[site_id]).ledger
    if not file.is_file():
        return 0
    return sum(r.entry is not None and r.entry.partition == "train" for r in read_ledger(file))
