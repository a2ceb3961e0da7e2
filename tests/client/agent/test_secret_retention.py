"""Secrets of secure sums do not lie at a hospital for ever."""

import os
import time

import pytest
from tiny_consortium import tiny_policy, tiny_study

from client.agent.secure_sums import SECRETS_KEPT_S, SecureSums
from simulations.engines.memory_sites import with_identities


@pytest.mark.parametrize(
    ("age", "kept"), [(SECRETS_KEPT_S - 60, True), (SECRETS_KEPT_S + 60, False)]
)
def test_secrets_of_a_forgotten_run_go_when_the_next_opens(age, kept, tmp_path):
    study = with_identities(
        tiny_study(privacy={"mode": "distributed", "epsilon": 3.0}), tmp_path / "sites"
    )
    policy = tiny_policy(study, "site-a", tmp_path / "sites" / "site-a")
    folder = policy.state / "secure_sums"
    folder.mkdir(parents=True)
    old, own = folder / "old.json", folder / "new.json"
    for path in (old, own):
        path.write_text("{}")
        then = time.time() - age
        os.utime(path, (then, then))
    own.unlink()
    SecureSums(policy, study, "new")
    assert old.exists() is kept
