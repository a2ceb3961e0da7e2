"""Show that a coordinator or a hospital that lies gains nothing from a running consortium.

Agents of SYNTHETIC hospitals run as processes; the coordinator's own code runs with its requests
changed on the way, and asks questions that the study does not imply; one hospital sends garbage;
an operator restores backups.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from simulations.attackers import lying_coordinator as coordinator
from simulations.attackers import lying_hospital as hospital
from simulations.attackers.lying_coordinator import LyingAttempt
from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main
from simulations.deployed.agent_processes import agents_on_trial

DURATION = "about 10 minutes"
DP = {"release": "dp", "survival_epsilon": 2.0, "response_epsilon": 1.0}


@dataclass(frozen=True)
class TrialSize(Size):
    """So many hospitals and patients in each, agents in processes of their own or not."""

    sites: int = 6
    patients: int = 40
    processes: bool = True


FULL, MINIATURE = TrialSize(), TrialSize(patients=24, processes=False, partial=True)


def checks(data: Path, size: TrialSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    tried = []
    for attempt in attempts(size):
        progress(str(attempt))
        tried.append(attempt)
        yield Check(f"{attempt.what}: answers", attempt.succeeded, 0, "==", str(attempt))
    liars = [attempt for attempt in tried if attempt.what.startswith("one hospital sends")]
    yield Check("attempts", len(tried), 14, ">=", full_size=True)
    yield Check("attempts that succeeded", sum(a.succeeded > 0 for a in tried), 0, "==")
    unnamed = sum(not attempt.named for attempt in liars)
    yield Check("hospitals that sent garbage and were not named", unnamed, 0, "==")


def attempts(size: TrialSize) -> Iterator[LyingAttempt]:
    """Yield every attempt as it has been made."""
    shape = {"sites": size.sites, "patients": size.patients, "processes": size.processes}
    with (
        tempfile.TemporaryDirectory(prefix="tb") as folder,
        agents_on_trial(Path(folder) / "t", **shape) as trial,
    ):
        study = trial.agreed(evaluation=DP)
        yield coordinator.honest_run(trial, study)
        few = 2 if size.partial else None
        yield from islice(coordinator.lies_about_the_question(trial, study), few)
        yield from coordinator.questions_of_its_own(trial, study)
        yield coordinator.evaluation_beyond_consent(trial, study)
        exact = trial.agreed(evaluation={"release": "internal"})
        yield from coordinator.questions_of_its_own(trial, exact)
        yield coordinator.more_exact_tables(trial, exact)
        yield hospital.numbers_beyond_the_bound(trial, study)
        yield coordinator.patients_in_the_handshake(trial, study)
        yield from islice(hospital.garbage_in_the_sum(trial, study), few)
        if size.processes:
            yield coordinator.large_frames(trial)
        yield from islice(hospital.restored_ledgers(trial, study), few and 1)


if __name__ == "__main__":
    main(__file__)
