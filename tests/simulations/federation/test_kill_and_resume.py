"""kill -9 of the whole process in mid-training, then the same command again."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tiny_consortium import tiny_agents, tiny_policy, tiny_study

from common.commands.cli_output import Output
from common.ledger.ledger import Ledger, LedgerBudgets
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import with_identities

ROUNDS = 40
SCRIPT = """
import sys
from pathlib import Path
import torch
from common.commands.cli_output import Output
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import with_identities
from tiny_consortium import tiny_agents, tiny_study

folder = Path(sys.argv[1])
study = with_identities(tiny_study(**eval(sys.argv[2])), folder / "sites")
torch.set_num_threads(1)
agents = tiny_agents(study, folder / "sites")
result = run_in_process(study, agents, folder / "run", output=Output(json_mode=True))
sys.stdout.write(result.model_digest)
"""


def changes(mode):
    return {
        "training": {
            "rounds": ROUNDS,
            "nominal_patients": 90,
            "server": {"name": "adam", "lr": 0.02},
        },
        "privacy": {
            "mode": mode,
            "epsilon": 8.0,
            "evaluation": {"release": "internal" if mode == "none" else "dp"},
        },
    }


def whole_study(folder, mode):
    return with_identities(tiny_study(**changes(mode)), folder / "sites")


def fix_split(folder):
    for letter in "abc":
        private = folder / "sites" / f"site-{letter}" / "private"
        private.mkdir(parents=True, exist_ok=True)
        (private / "split.key").write_text("cd" * 32)


def start(folder, mode):
    fix_split(folder)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), repr(changes(mode))],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finish(folder, mode):
    """Run to the end in this process: the same command after the crash."""
    fix_split(folder)
    study = whole_study(folder, mode)
    agents = tiny_agents(study, folder / "sites")
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True))


def kill_after_round(folder, mode, number):
    process = start(folder, mode)
    checkpoints = folder / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        names = [p.name for p in checkpoints.glob("round_*.json")] if checkpoints.exists() else []
        if names and max(names) >= f"round_{number:06d}.json":
            break
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def model_bytes(folder):
    return (folder / "run" / "model.safetensors").read_bytes()


def test_without_privacy_the_final_model_is_identical_to_the_last_byte(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    digest = finish(whole, "none").model_digest
    kill_after_round(cut, "none", 9)
    assert not (cut / "run" / "model.safetensors").exists()
    assert finish(cut, "none").model_digest == digest
    assert model_bytes(cut) == model_bytes(whole)


@pytest.mark.parametrize("mode", [pytest.param("local", marks=pytest.mark.slow), "distributed"])
def test_with_noise_nothing_is_spent_or_drawn_twice(mode, tmp_path):
    kill_after_round(tmp_path, mode, 7)
    sealed = {p: p.read_bytes() for p in (tmp_path / "sites").rglob("*.reply")}
    assert len(sealed) >= 18
    history = finish(tmp_path, mode).history
    assert all(path.read_bytes() == content for path, content in sealed.items())
    # An upload that was masked but not yet stored when the power went is never masked again:
    # that one round may be void. Mode local has no such state.
    void = [record.round for record in history if not record.sites]
    assert len(void) <= (1 if mode == "distributed" else 0)
    study = whole_study(tmp_path, mode)
    for letter in "abc":
        policy = tiny_policy(study, f"site-{letter}", tmp_path / "sites")
        ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
        training = [r for r in ledger.reservations() if r.entry.partition == "train"]
        rounds = [r.entry.round for r in training]
        assert len(rounds) == len(set(rounds))
        assert set(range(1, ROUNDS + 1)) - set(rounds) <= set(void)
        assert {r.entry.round for r in training if r.state == "open"} <= set(void)
        spent = ledger.epsilon(study.digest(), "train", 1e-5)
        accounts = recompose(read_ledger(policy.ledger), 1e-5, where=policy.site_id)
        assert accounts
        assert all(account.agree for account in accounts)
        assert 7.8 < spent <= 8.0
