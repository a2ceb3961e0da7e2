"""Compare robust aggregation rules: one poisoned hospital of six on Fed-TCGA-BRCA.

The hospital of median size sends its update times 100, or times -5, or trains on outcomes filed
under the wrong patients, or sends NaN. Against it stand the plain mean, the norm bound, median,
trimmed mean, Krum and centred clipping, without privacy and in mode local at epsilon 3 (where
the server also refuses what clipping and noise cannot explain). C-index on held-out patients,
five folds, server Adam. What is checked is the order that the design measured with another
optimiser: a lie that ruins the mean costs a robust rule little, a rule costs an honest
federation little, and no rule corrects wrong labels.

One draw of noise moves a mean over folds by up to .030 (SD), the mean of eight draws by .011. The
closest check, a robust rule .133 above the mean where .1 is asked, has three times that to spare.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.privacy.plan import PrivacyPlan
from common.study.federated_method import AggregationRule
from common.study.study import Study, TrainingPlan
from common.wire import Arrays
from simulations.benchmarks.parts.check import Check, at_full_size, progress
from simulations.benchmarks.parts.cohort_size import ScenarioSize
from simulations.benchmarks.parts.command import main
from simulations.cohorts.cohort import Cohort, concatenate
from simulations.cohorts.folds import within_hospital
from simulations.comparison.arm_metrics import arm_scores
from simulations.engines.circumstances import Circumstances, Poison, as_trained, poisoned_site
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study, load_cohort
from simulations.trials.exact_evaluation import predict_cohort
from simulations.trials.site_trials import SiteTrial, train_by_site

DURATION = "about 5 minutes on an idle core"
NEEDS = ("multicentre_survival",)
EPSILON = 3.0


FULL = ScenarioSize(seeds=(0,), draws=8, folds=5, rounds=50)
MINIATURE = ScenarioSize(seeds=(0,), folds=2, rounds=2, workers=1)

BOUND = {"norm_factor": 2.0}
RULES: dict[str, AggregationRule] = {
    "mean": AggregationRule(),
    "norm bound": AggregationRule.model_validate(BOUND),
    "median": AggregationRule.model_validate({"rule": "median", **BOUND}),
    "trimmed": AggregationRule.model_validate({"rule": "trimmed_mean", **BOUND}),
    "centred clip": AggregationRule.model_validate({"rule": "centred_clipping", **BOUND}),
    "krum": AggregationRule.model_validate({"rule": "krum", **BOUND}),
}
LIES: dict[str, Poison | None] = {
    "honest": None,
    "x100": Poison(kind="scale", factor=100),
    "sign flip x5": Poison(kind="sign_flip", factor=5),
    "labels": Poison(kind="labels"),
    "NaN": Poison(kind="nan"),
}
ROBUST = ("median", "trimmed", "centred clip")

Table = dict[tuple[str, str], float]
"""(rule, lie) -> mean C-index over folds."""


def checks(data: Path, size: ScenarioSize) -> Iterator[Check]:
    """Yield the checks.

    Args:
        data: Folder that holds `multicentre_survival/`.
        size: Folds, rounds and draws of noise.
    """
    for title, privacy in (
        ("no privacy", PrivacyPlan(mode="none")),
        (f"local, epsilon {EPSILON:g}", PrivacyPlan(mode="local", epsilon=EPSILON)),
    ):
        table = measure(data, privacy, size)
        show(title, table)
        yield from at_full_size(order_checks(title, table))


def order_checks(title: str, table: Table) -> Iterator[Check]:
    """Yield what must hold of one table of rules and lies.

    Args:
        title: Which table.
        table: C-index by rule and lie.
    """
    honest = table["mean", "honest"]
    flipped = table["mean", "sign flip x5"]
    yield Check(f"{title}: C lost by the mean to a flipped sign", honest - flipped, 0.1, ">=")
    for rule in ROBUST:
        score = table[rule, "sign flip x5"]
        what = f"{title}: C that {rule} keeps above the mean when a sign is flipped"
        yield Check(what, score - flipped, 0.1, ">=", f"{score:.3f} against {flipped:.3f}")
        cost = honest - table[rule, "honest"]
        what = f"{title}: C that {rule} costs an honest federation"
        yield Check(what, cost, 0.06, "<=")
    louder = honest - min(table[rule, "x100"] for rule in (*ROBUST, "norm bound"))
    what = f"{title}: largest loss of C to an update times 100, norm bound or rule"
    yield Check(what, louder, 0.06, "<=", f"mean alone {table['mean', 'x100']:.3f}")
    gain = max(table[rule, "labels"] for rule in RULES) - table["mean", "labels"]
    what = f"{title}: C that the best rule gains when labels are wrong"
    yield Check(what, gain, 0.04, "<=", "no rule is meant to correct labels")
    lost = honest - table["mean", "NaN"]
    what = f"{title}: C lost when one hospital sends NaN and is left out"
    yield Check(what, lost, 0.03, "<=")


def measure(data: Path, privacy: PrivacyPlan, size: ScenarioSize) -> Table:
    """Return the mean C-index of every rule under every lie, over folds and draws of noise."""
    scenario = size.scenario("fed_tcga_brca")
    cohort, count, seed = load_cohort(scenario, data), scenario.folds.count, size.seeds[0]
    fold_of, draws = within_hospital(cohort, count, seed), size.draws if privacy.is_private else 1
    jobs = [(fold_of == fold,) for fold in range(count) for _ in range(draws)]
    scores: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    shared = (scenario, cohort, privacy, seed)
    for place, found in over_cores(_fold, jobs, shared=shared, workers=size.workers):
        for key, value in found.items():
            scores.setdefault(key, np.zeros(len(jobs)))[place] = value
        progress(f"{privacy.mode}: fold {place // draws + 1} of {count}")
    if draws > 1:
        spread = {k: v.reshape(count, draws).mean(0).std(ddof=1) for k, v in scores.items()}
        progress(
            f"SD of a mean over folds with one draw of noise: at most {max(spread.values()):.3f}"
        )
    return {key: float(values.mean()) for key, values in scores.items()}


def show(title: str, table: Table) -> None:
    """Write the table to standard error."""
    progress(f"\n{title}: C-index, one lying hospital of six")
    progress(f"  {'':14s}" + "".join(f"{lie:>14s}" for lie in LIES))
    for rule in RULES:
        progress(f"  {rule:14s}" + "".join(f"{table[rule, lie]:14.3f}" for lie in LIES))


def _fold(
    scenario: Scenario,
    cohort: Cohort,
    privacy: PrivacyPlan,
    seed: int,
    tested: npt.NDArray[np.bool_],
) -> Table:
    """Return C of every (rule, lie) on one fold; wrong labels are further patients."""
    train, test = cohort.take(np.flatnonzero(~tested)), cohort.take(np.flatnonzero(tested))
    groups = train.by_hospital()
    lie = LIES["labels"]
    wrong = as_trained(groups, Circumstances(poison=lie), seed)
    liar = poisoned_site(groups, lie) if lie else ""
    marked = wrong[liar]
    marked = replace(marked, patient_ids=[f"wrong-{p}" for p in marked.patient_ids])
    everyone = concatenate([train, marked])
    rows = {site: np.flatnonzero(train.hospital == site) for site in groups}
    misled = {**rows, liar: np.arange(len(train), len(everyone))}
    keys, trials = [], []
    for rule in RULES:
        for name, poison in LIES.items():
            study = _study(scenario, train, rows, rule, privacy, seed)
            sites = misled if name == "labels" else rows
            keys.append((rule, name))
            trials.append(SiteTrial(study, sites, liar, poison))
    trained = train_by_site(everyone.dataset(trials[0].study), trials)
    return {
        key: _score(trial.study, arrays, test)
        for key, trial, arrays in zip(keys, trials, trained, strict=True)
    }


def _study(
    scenario: Scenario,
    train: Cohort,
    rows: dict[str, npt.NDArray[np.intp]],
    rule: str,
    privacy: PrivacyPlan,
    seed: int,
) -> Study:
    plan = TrainingPlan.model_validate(
        {
            "rounds": scenario.training.rounds,
            "local": {"kind": "gradient_sum"},
            "server": {"name": "adam", "lr": 0.03},
            "aggregation": RULES[rule].model_dump(),
        }
    )
    arm = Arm(name="attacked", training=plan, privacy=privacy)
    sizes = {site: len(own) for site, own in rows.items()}
    return arm_study(scenario, arm, train, sorted(rows), n_train=len(train), seed=seed, sizes=sizes)


def _score(study: Study, arrays: Arrays, test: Cohort) -> float:
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return 0.5
    risk = predict_cohort(study, arrays, test).risk
    return arm_scores(test.outcomes.assign(risk=risk))["c_index"]


if __name__ == "__main__":
    main(__file__)
