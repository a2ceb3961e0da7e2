"""FLamby's Fed-TCGA-BRCA protocol reproduced, and our discrete-time head beside it.

Published means over seeds 42-46 are held against ours: pooled to the third digit (the data order
and seeds are the published ones), strategies within sampling error. Then our linear head with
server Adam on the same split, without privacy and in mode distributed at epsilon 3. Test events
by site are 14/4/8/3/2/1: a C-index over one or two events is coarse, and the last is uninformative.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from common.privacy.plan import PrivacyPlan
from simulations.benchmarks.flamby.our_head import our_test_c
from simulations.benchmarks.flamby.protocol import (
    COLUMNS,
    SEEDS,
    FlambyData,
    evaluate,
    load_flamby,
    train_centrally,
)
from simulations.benchmarks.flamby.strategies import STRATEGIES, train_federated
from simulations.benchmarks.parts.check import Check, progress, run

NAME = "flamby_fed_tcga_brca"
DURATION = "about 2 minutes on an idle core"

PUBLISHED_POOLED = (0.773, 0.582, 0.706, 0.629, 0.766, 0.600, 0.676, 0.704)
PUBLISHED: dict[str, tuple[float, float, float, float]] = {
    "fedavg": (0.732, 0.181, 0.735, 0.175),
    "fedprox": (0.729, 0.168, 0.717, 0.162),
    "scaffold": (0.687, 0.036, 0.699, 0.035),
    "fedadam": (0.815, 0.026, 0.842, 0.017),
    "fedyogi": (0.815, 0.026, 0.842, 0.017),
    "fedadagrad": (0.813, 0.005, 0.834, 0.007),
}
"""Strategy -> mean and SD of the site average, mean and SD of the pooled test set."""

FloatArray = npt.NDArray[np.float64]


def checks(data: Path) -> Iterator[Check]:
    """Yield the checks; `data` is the folder of the real data.

    Raises:
        DataError: The files are missing.
    """
    torch.set_num_threads(1)
    raw = load_flamby(data)
    events = [int(test.truth[:, 0].sum()) for test in raw.test]
    progress(f"test events by site: {events}; the last site is uninformative")
    progress(f"{'':14s}" + "".join(f"{column:>12s}" for column in COLUMNS))
    yield from _pooled(raw)
    ours: dict[str, FloatArray] = {}
    for strategy in STRATEGIES:
        scores = np.array([evaluate(train_federated(strategy, raw, s), raw) for s in SEEDS])
        ours[strategy.name] = scores
        _show(strategy.name, scores)
        yield from _against_published(strategy.name, scores)
    yield from _standardised(load_flamby(data, standardise_age=True))
    yield from _our_head(data)


def _pooled(data: FlambyData) -> Iterator[Check]:
    scores = np.array([evaluate(train_centrally(data.pooled_train, s), data) for s in SEEDS])
    _show("pooled", scores)
    worst = float(np.abs(scores.mean(0) - np.array(PUBLISHED_POOLED)).max())
    what = "pooled training: largest difference to the 8 published means of 5 seeds"
    yield Check(what, worst, 0.00051, "<=", note="published to three digits")


def _against_published(name: str, scores: FloatArray) -> Iterator[Check]:
    avg, avg_sd, pooled, pooled_sd = PUBLISHED[name]
    for column, mean, sd in ((6, avg, avg_sd), (7, pooled, pooled_sd)):
        own = float(scores[:, column].std(ddof=1))
        distance = abs(float(scores[:, column].mean()) - mean)
        error = float(np.sqrt((sd**2 + own**2) / len(SEEDS)))
        what = f"{name}, {COLUMNS[column]}: distance to the published mean in standard errors"
        note = f"ours {scores[:, column].mean():.3f} (SD {own:.3f}), published {mean} (SD {sd})"
        yield Check(what, distance / error, 2.78, "<=", note=note)


def _standardised(data: FlambyData) -> Iterator[Check]:
    for strategy in STRATEGIES:
        if strategy.name not in ("fedavg", "fedadam"):
            continue
        scores = np.array([evaluate(train_federated(strategy, data, s), data) for s in SEEDS])
        _show(f"{strategy.name}, std", scores)
        known = {"fedavg": (0.812, 0.836), "fedadam": (0.824, 0.850)}[strategy.name]
        found = (float(scores[:, 6].mean()), float(scores[:, 7].mean()))
        worst = max(abs(a - b) for a, b in zip(found, known, strict=True))
        what = f"{strategy.name} with standardised age: largest distance to the re-run figures"
        yield Check(what, worst, 0.03, "<=", note=f"ours {found}, known {known}")


def _our_head(data: Path) -> Iterator[Check]:
    plain = our_test_c(data, PrivacyPlan(mode="none"))
    what = "ours, discrete-time linear head with server Adam: pooled test C, no privacy"
    yield Check(what, plain, 0.842, ">=", note="best published 0.842; deterministic")
    private = [
        our_test_c(data, PrivacyPlan(mode="distributed", epsilon=3.0, clip=0.3, n_min=6))
        for _ in SEEDS
    ]
    note = f"5 draws of noise, {min(private):.3f} to {max(private):.3f}"
    what = "ours in mode distributed, epsilon 3: mean pooled test C"
    yield Check(what, float(np.mean(private)), 0.835, ">=", note=note)


def _show(name: str, scores: FloatArray) -> None:
    cells = zip(scores.mean(0), scores.std(0, ddof=1), strict=True)
    progress(f"{name:14s}" + "".join(f" {mean:.3f}±{sd:.3f}" for mean, sd in cells))


if __name__ == "__main__":
    run(NAME, checks, seeds=SEEDS)
