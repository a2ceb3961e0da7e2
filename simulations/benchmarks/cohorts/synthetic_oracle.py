"""Check that the federated fused model is within 0.03 AUC and 0.03 C of the oracle.

Six synthetic hospitals of 2,000 patients on average, drawn as features: a quarter held out, two
hospitals without RNA, two without MRI, other gaps as in the demo. The oracle knows the true
factors of every modality a patient has (the attainable one; that of all four factors, which no
model can see where a modality is missing, is in the notes). Compared on the same held-out
patients: the fused model (MoEMIL, mode none, federated averaging) with each single modality
federated the same way, with every hospital alone, and with linear heads in mode local at epsilon
8. Intervals are bootstraps over held-out patients, drawn inside hospitals, all arms together.
The training plan was chosen on other seeds. Synthetic figures prove code, not medicine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from simulations.benchmarks.parts.check import Check, Size, at_full_size, progress
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.parts.paired_bootstrap import (
    Difference,
    OrderedPairs,
    PairedRanks,
    mean_difference,
    response_pairs,
    survival_pairs,
)
from simulations.benchmarks.parts.synthetic_trial import (
    ARMS,
    EPSILON,
    MODALITY_FEATURES,
    ArmName,
    FloatArray,
    Scores,
    SyntheticTrial,
    draw_trial,
    run_arm,
)
from simulations.engines.worker_process import over_cores

DURATION = "about 5 minutes on two cores"
MARGIN = 0.03


@dataclass(frozen=True)
class OracleSize(Size):
    """So many hospitals, patients in each, rounds (None: as planned), and bootstrap draws."""

    hospitals: int = 6
    patients: int = 2000
    rounds: int | None = None
    draws: int = 1000
    workers: int | None = None


FULL = OracleSize(seeds=(1, 2, 3))
MINIATURE = OracleSize(seeds=(1,), hospitals=3, patients=40, rounds=1, draws=20, workers=1)

METRICS = {"AUC": "response AUC", "C": "C-index"}


@dataclass(frozen=True)
class Ranked:
    """One metric of one trial: over all pairs, and over pairs inside a hospital."""

    overall: PairedRanks
    inside: PairedRanks


def checks(data: Path, size: OracleSize) -> Iterator[Check]:
    """Yield the checks; the patients are synthetic."""
    by_seed = [_rank_all(seed, scores, size) for seed, scores in _all_scores(size).items()]
    for metric in METRICS:
        yield from at_full_size(_metric_checks(metric, [ranked[metric] for ranked in by_seed]))


def _all_scores(size: OracleSize) -> dict[int, dict[ArmName, Scores]]:
    """Train every arm of every seed over the cores and return the scores by seed."""
    jobs = [(seed, arm) for seed in size.seeds for arm in ARMS]
    found: dict[int, dict[ArmName, Scores]] = {seed: {} for seed in size.seeds}
    with TemporaryDirectory(prefix="tumorboard-") as folder:
        shared = (size, Path(folder))
        for place, scores in over_cores(_train_one, jobs, shared=shared, workers=size.workers):
            seed, arm = jobs[place]
            found[seed][arm] = scores
            progress(f"seed {seed}: {arm} is trained")
    return found


def _train_one(size: OracleSize, folder: Path, seed: int, arm: ArmName) -> Scores:
    trial = draw_trial(seed, size.hospitals, size.patients)
    return run_arm(trial, arm, folder / str(seed), rounds=size.rounds)


def _rank_all(seed: int, scores: dict[ArmName, Scores], size: OracleSize) -> dict[str, Ranked]:
    trial = draw_trial(seed, size.hospitals, size.patients)
    progress(f"seed {seed}: {len(trial.train)} training and {len(trial.test)} held-out patients")
    response = {arm: found.response for arm, found in scores.items()} | {
        "oracle": trial.truth["attainable_response_probability"].to_numpy(),
        "full oracle": trial.truth["response_probability"].to_numpy(),
    }
    risk = {arm: found.risk for arm, found in scores.items()} | {
        "oracle": trial.truth["attainable_risk"].to_numpy(),
        "full oracle": trial.truth["risk"].to_numpy(),
    }
    lives = survival_pairs(trial.test.time_months, trial.test.event)
    pairs = response_pairs(trial.test.response)
    return {
        "AUC": _rank(trial, pairs, response, seed, size.draws),
        "C": _rank(trial, lives, risk, seed, size.draws),
    }


def _rank(
    trial: SyntheticTrial, pairs: OrderedPairs, scores: dict[str, FloatArray], seed: int, draws: int
) -> Ranked:
    hospital = trial.test.hospital
    near = {name: scores[name] for name in ("fused", "alone")}
    return Ranked(
        PairedRanks(pairs, scores, hospital, draws=draws, seed=seed),
        PairedRanks(pairs.inside(hospital), near, hospital, draws=draws, seed=seed),
    )


def _metric_checks(metric: str, by_seed: Sequence[Ranked]) -> Iterator[Check]:
    """Yield the checks of one metric.

    The gap to the oracle must hold on every seed; what is above what, in the mean of the seeds,
    which are independent consortia.
    """
    overall = [ranked.overall for ranked in by_seed]
    name = METRICS[metric]
    gaps = [ranks.difference("oracle", "fused") for ranks in overall]
    yield Check(
        f"{name}: oracle minus fused, worst seed",
        max(gap.value for gap in gaps),
        MARGIN,
        "<=",
        f"fused {_values(overall, 'fused')}; attainable oracle {_values(overall, 'oracle')}; "
        f"oracle that sees missing modalities {_values(overall, 'full oracle')}; "
        f"differences {_told(gaps)}",
    )
    for modality in MODALITY_FEATURES:
        note = f"{modality} alone {_values(overall, modality)}"
        yield _is_above_zero(f"{name}: fused minus {modality} alone", overall, modality, note)
    inside = [ranked.inside for ranked in by_seed]
    what = f"{name}: federated minus every hospital by itself, pairs inside hospitals"
    note = f"federated {_values(inside, 'fused')}; by itself {_values(inside, 'alone')}"
    yield _is_above_zero(what, inside, "alone", note)
    yield _private_loss(name, overall)


def _private_loss(name: str, overall: Sequence[PairedRanks]) -> Check:
    lost = [ranks.difference("fused", "private") for ranks in overall]
    heads = [ranks.difference("linear", "private") for ranks in overall]
    all_there_is = float(np.mean([ranks.value("fused") for ranks in overall])) - 0.5
    return Check(
        f"{name}: lost by mode local at epsilon {EPSILON:g} (linear heads) against mode none "
        "(fused), mean over seeds; a model that guesses loses the bound",
        float(np.mean([one.value for one in lost])),
        all_there_is,
        "<",
        f"private {_values(overall, 'private')}; lost {_told(lost)}; of it to the noise, linear "
        f"heads with and without: {_told(heads)}",
    )


def _is_above_zero(what: str, ranks: Sequence[PairedRanks], other: str, note: str) -> Check:
    mean = mean_difference(ranks, "fused", other)
    each = [one.difference("fused", other) for one in ranks]
    what += ", mean of seeds, lower end of the 95 % interval"
    return Check(what, mean.low, 0.0, ">", f"{note}; mean {mean}; by seed {_told(each)}")


def _values(ranks: Sequence[PairedRanks], name: str) -> str:
    return " ".join(f"{one.value(name):.3f}" for one in ranks)


def _told(found: Sequence[Difference]) -> str:
    return ", ".join(str(difference) for difference in found)


if __name__ == "__main__":
    main(__file__)
