"""Simulate what goes wrong in a consortium: absence, lateness, shift, missing data, lies."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from common.contract import Contract
from simulations.cohorts.cohort import Cohort

IntArray = npt.NDArray[np.intp]


class Poison(Contract):
    """One hospital that sends what it should not.

    `scale` multiplies its updates by `factor`, `sign_flip` by -`factor`, `nan` puts a NaN into
    each. `labels` is no malice: responders and non-responders are exchanged, and the longest
    follow-up is filed under the patient with the shortest, and so on.
    """

    kind: Literal["scale", "sign_flip", "nan", "labels"]
    factor: float = Field(default=100.0, gt=0)
    site: Literal["largest", "median", "smallest"] = "median"


class Circumstances(Contract):
    """What an arm has to live with. Everything follows from the seed of the cell."""

    dropout: float = Field(default=0, ge=0, lt=1, description="chance that a site skips a round")
    straggle: float = Field(
        default=0, ge=0, lt=1, description="chance that a site trains but answers too late"
    )
    label_shift: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="share of one outcome that every other site loses from training, and of the "
        "opposite outcome that the sites between lose",
    )
    scanner_shift: float = Field(
        default=0, ge=0, description="offset of every site's features, in SD of the feature"
    )
    lacking: dict[str, float] = Field(
        default_factory=dict, description="feature set -> share of the sites that do not have it"
    )
    poison: Poison | None = None

    @property
    def has_silence(self) -> bool:
        """Whether sites are silent in some rounds."""
        return self.dropout > 0 or self.straggle > 0


def as_recorded(cohort: Cohort, setup: Circumstances, seed: int) -> Cohort:
    """Return the cohort as its hospitals' equipment records it, in training and in use."""
    sites = list(cohort.hospitals)
    features = dict(cohort.features)
    for name, share in setup.lacking.items():
        without = set(_chosen(sites, share, seed, name))
        features[name] = [
            None if hospital in without else bag
            for hospital, bag in zip(cohort.hospital, features[name], strict=True)
        ]
    if setup.scanner_shift:
        features = {n: _shifted(cohort, n, bags, setup, seed) for n, bags in features.items()}
    return replace(cohort, features=features)


def as_trained(groups: Mapping[str, Cohort], setup: Circumstances, seed: int) -> dict[str, Cohort]:
    """Return the training patients of each hospital after label shift and label errors."""
    result = dict(groups)
    if setup.label_shift:
        for place, site in enumerate(sorted(groups)):
            rng = _stream(seed, site, "label_shift")
            result[site] = _thinned(groups[site], place % 2, setup.label_shift, rng)
    if setup.poison is not None and setup.poison.kind == "labels":
        liar = poisoned_site(groups, setup.poison)
        result[liar] = _mislabelled(result[liar])
    return result


def poisoned_site(groups: Mapping[str, Cohort], poison: Poison) -> str:
    """Return the hospital that lies: by its place in the order of sizes."""
    order = sorted(groups, key=lambda site: (len(groups[site]), site))
    return {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}[
        poison.site
    ]


def silent_sites(
    sites: Sequence[str], share: float, *, seed: int, round: int, what: str
) -> frozenset[str]:
    """Return who is silent in a round; each with chance `share`, but never all of them."""
    rng = _stream(seed, f"{what} {round}", "silence")
    draws = dict(zip(sorted(sites), rng.random(len(sites)), strict=True))
    present = max(draws, key=lambda site: draws[site])
    return frozenset(s for s, draw in draws.items() if draw < share and s != present)


def _chosen(sites: Sequence[str], share: float, seed: int, what: str) -> list[str]:
    rng = _stream(seed, what, "lacking")
    return [sites[i] for i in rng.permutation(len(sites))[: round(share * len(sites))]]


def _shifted(
    cohort: Cohort,
    name: str,
    bags: Sequence[npt.NDArray[np.float32] | None],
    setup: Circumstances,
    seed: int,
) -> list[npt.NDArray[np.float32] | None]:
    values = np.concatenate([bag for bag in bags if bag is not None])
    spread = values.std(axis=0)
    offset = {
        site: (
            setup.scanner_shift * spread * _stream(seed, site, name).normal(size=len(spread))
        ).astype(np.float32)
        for site in cohort.hospitals
    }
    return [
        None if bag is None else bag + offset[str(site)]
        for site, bag in zip(cohort.hospital, bags, strict=True)
    ]


def _thinned(cohort: Cohort, place: int, share: float, rng: np.random.Generator) -> Cohort:
    outcome = np.where(np.isfinite(cohort.response), cohort.response, cohort.event)
    drop = (outcome == place) & (rng.random(len(cohort)) < share)
    return cohort if drop.all() else cohort.take(np.flatnonzero(~drop))


def _mislabelled(cohort: Cohort) -> Cohort:
    order = np.argsort(cohort.time_months, kind="stable")
    time, event = cohort.time_months.copy(), cohort.event.copy()
    time[order], event[order] = cohort.time_months[order[::-1]], cohort.event[order[::-1]]
    return replace(cohort, response=1.0 - cohort.response, time_months=time, event=event)


def _stream(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
