"""Let one hospital of twelve steer the model: TCGA breast cancer, mode distributed.

The liar knows what the others send and pulls straight against it in every round, in three
strengths: as long as its sum may be by clip and nominal patients (`loud`), as long as its own
patients could be (`own`), and a third of that (`quiet`). Against it stand one sum of all hospitals
with the bound of its length, and sums over three random groups of four with a rule and with what
the rounds tell about each hospital. `unbounded` is a lie ten times as loud in one sum, which passed
while a sum could hold ten times the nominal patients. C-index on held-out patients of all
hospitals, five folds, at epsilon 3 and at epsilon 500, which is next to no noise.

One draw of noise moves C of one fold by about .03 (SD), the mean over five folds and four draws
by .007, a difference of two such means by .01.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.privacy.plan import PrivacyPlan
from common.study.federated_method import AggregationRule
from common.study.study import Study
from simulations.benchmarks.parts.check import Check, at_full_size, progress
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import within_hospital
from simulations.comparison.arm_metrics import arm_scores
from simulations.engines.circumstances import Poison, poisoned_site
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario import Arm, HospitalRule, Scenario
from simulations.scenario.scenario_study import arm_study, load_cohort
from simulations.trials.exact_evaluation import predict_cohort
from simulations.trials.site_trials import SiteTrial, train_by_site

DURATION = "about 8 minutes on two cores"
NEEDS = ("tcga",)
EPSILONS = (500.0, 3.0)
CLIP = 0.3
GROUPS = 3
RULE = AggregationRule(rule="median")
HOSPITALS = HospitalRule(minimum=36, rest="hold_out")
"""Twelve hospitals of 36 to 133 patients."""

MOST_LOST = 0.02
PREMIUM = 0.035
"""Bound on what groups cost without a liar, and on what a quieter lie costs beside: each was
measured at about .02 at epsilon 3, and at nothing without noise."""

FULL = ScenarioSize(seeds=(0,), draws=4, scenarios=("tcga_brca",))
MINIATURE = ScenarioSize(seeds=(0,), scenarios=("tcga_brca",), folds=2, rounds=2, workers=1)


@dataclass(frozen=True)
class Attack:
    """One arm.

    Attributes:
        groups: Sums a round.
        steer: Length of the lie as a share of what the liar's sum may hold; 0: all are honest.
        bounded: Whether the server refuses sums that are too long.
    """

    groups: int = 1
    steer: float = 0.0
    bounded: bool = True


ATTACKS: dict[str, Attack] = {
    "one sum, honest": Attack(),
    "one sum, unbounded": Attack(steer=10.0, bounded=False),
    "one sum, loud": Attack(steer=1.0),
    "groups, honest": Attack(GROUPS),
    "groups, loud": Attack(GROUPS, 1.0),
    "groups, own": Attack(GROUPS, 0.25),
    "groups, quiet": Attack(GROUPS, 0.08),
}
HONEST, GROUPED = "one sum, honest", "groups, honest"

Table = dict[str, float]
"""Arm -> mean C-index over folds, seeds and draws."""


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `tcga/`.
        size: Scenario, folds, seeds, rounds and draws of noise.
    """
    scenario = size.scenario(size.scenarios[0]).model_copy(update={"hospitals": HOSPITALS})
    cohort = load_cohort(scenario, data)
    for epsilon in EPSILONS:
        table = measure(scenario, cohort, epsilon, size)
        for name, value in table.items():
            progress(f"  epsilon {epsilon:g}, {name:20s} C-index {value:.3f}")
        yield from at_full_size(loss_checks(f"epsilon {epsilon:g}", table))


def loss_checks(title: str, table: Table) -> Iterator[Check]:
    """Yield what must hold of the arms at one epsilon."""
    lost = {name: table[HONEST] - value for name, value in table.items()}
    for name in ("one sum, unbounded", "one sum, loud"):
        what = f"{title}: C lost to a lie in {name}, which is why there are groups"
        yield Check(what, lost[name], 0.08, ">=", f"{table[name]:.3f}")
    what = f"{title}: C lost against {HONEST}, in groups, loud: a lie as long as passes"
    yield Check(what, lost["groups, loud"], MOST_LOST, "<=", f"{table['groups, loud']:.3f}")
    premium = f"{title}: C that groups cost an honest federation"
    yield Check(premium, lost[GROUPED], PREMIUM, "<=", f"{table[GROUPED]:.3f}")
    for name in ("groups, own", "groups, quiet"):
        what = f"{title}: C lost to a lie that hides, {name} against {GROUPED}"
        yield Check(what, table[GROUPED] - table[name], PREMIUM, "<=", f"{table[name]:.3f}")


def measure(scenario: Scenario, cohort: Cohort, epsilon: float, size: ScenarioSize) -> Table:
    """Return the mean C-index of every arm."""
    count, shared = scenario.folds.count, (scenario, cohort, epsilon)
    draws = size.draws if epsilon < max(EPSILONS) else 1
    keys = [(seed, k, draw) for seed in size.seeds for k in range(count) for draw in range(draws)]
    folds = {seed: within_hospital(cohort, count, seed) for seed in size.seeds}
    jobs = [(folds[seed] == fold, seed * size.draws + draw) for seed, fold, draw in keys]
    scores = {name: np.zeros(len(jobs)) for name in ATTACKS}
    for place, found in over_cores(_fold, jobs, shared=shared, workers=size.workers):
        for name, value in found.items():
            scores[name][place] = value
    return {name: float(values.mean()) for name, values in scores.items()}


def _fold(
    scenario: Scenario,
    cohort: Cohort,
    epsilon: float,
    tested: npt.NDArray[np.bool_],
    draw: int,
) -> Table:
    """Return C of every arm on one fold; `draw` also draws the groups."""
    train, test = cohort.take(np.flatnonzero(~tested)), cohort.take(np.flatnonzero(tested))
    rows = {site: np.flatnonzero(train.hospital == site) for site in train.hospitals}
    liar = poisoned_site(train.by_hospital(), Poison(kind="scale"))
    trials = []
    for attack in ATTACKS.values():
        study = _study(scenario, train, rows, attack, epsilon, draw)
        trials.append(SiteTrial(study, rows, liar, steer=attack.steer, bounded=attack.bounded))
    trained = train_by_site(train.dataset(trials[0].study), trials)
    result = {}
    for name, trial, arrays in zip(ATTACKS, trials, trained, strict=True):
        risk = predict_cohort(trial.study, arrays, test).risk
        table = test.outcomes.assign(risk=risk).drop(columns="hospital")
        result[name] = arm_scores(table)["c_index"]
    return result


def _study(
    scenario: Scenario,
    train: Cohort,
    rows: dict[str, npt.NDArray[np.intp]],
    attack: Attack,
    epsilon: float,
    seed: int,
) -> Study:
    privacy = PrivacyPlan(epsilon=epsilon, clip=CLIP, groups=attack.groups)
    aggregation = {"aggregation": RULE} if attack.groups > 1 else {}
    plan = scenario.training.model_copy(update=aggregation)
    arm = Arm(name="steered", training=plan, privacy=privacy)
    sizes = {site: len(own) for site, own in rows.items()}
    study = arm_study(scenario, arm, train, sorted(rows), n_train=len(train), seed=0, sizes=sizes)
    training = study.training.model_copy(update={"seed": seed})
    return study.model_copy(update={"training": training})


if __name__ == "__main__":
    main(__file__)
