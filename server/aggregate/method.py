"""Turn the updates of one round into a direction of descent, by the study's method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import JsonValue

from common.models.base.parameters import block_of
from common.protocol.protocol import CONTROL
from common.study.catalogue import is_additive
from common.study.study import Study
from common.wire import Arrays, part_of, prefixed
from server.aggregate.contribution import Contribution
from server.aggregate.cosine_monitor import (
    MINIMUM_SITES,
    cosines_with_rest,
    remember_updates,
)
from server.aggregate.gradient_mean import descent, gradient_sum, mean_delta
from server.aggregate.group_history import STEERING, remembered, suspects
from server.aggregate.robust_mean import robust_mean, shortened

CENTRE, PULL = "centre/", "pull/"
"""Prefixes of what a method remembers from round to round."""


@dataclass(frozen=True)
class Aggregated:
    """What a round's updates come to.

    Attributes:
        direction: Direction of descent by parameter, float64.
        memory: What the next round needs of this one: `centre/<parameter>` the aggregate,
            `control/<parameter>` the control variate, `pull/<site>` the sum of its updates,
            `groups/...` see `group_history`.
        facts: For the record of the round.
    """

    direction: Arrays
    memory: Arrays
    facts: dict[str, JsonValue] = field(default_factory=dict)


def aggregate(
    study: Study, parameters: Arrays, contributions: Sequence[Contribution], memory: Arrays
) -> Aggregated:
    """Return the direction of descent: a mean delta, or minus a mean gradient with decay.

    Args:
        study: Says how updates are made and combined.
        parameters: Global model the updates refer to.
        contributions: Validated updates of modes none and local.
        memory: What the last round returned.
    """
    if not contributions:
        return Aggregated({}, dict(memory))
    if contributions[0].members:
        return _of_groups(study, parameters, contributions, memory)
    new_memory = dict(memory)
    rule = study.training.aggregation
    plain = is_additive(rule.rule) and rule.norm_factor is None
    updates: dict[str, Arrays] = {}
    if not plain or len(contributions) >= MINIMUM_SITES:  # else nobody looks at them one by one
        updates = shortened(_per_patient(study, contributions), rule.norm_factor)
    if plain:
        direction = _plain(study, parameters, contributions)
    else:
        centre = robust_mean(updates, _sizes(study, contributions), rule, part_of(memory, CENTRE))
        new_memory |= prefixed(CENTRE, centre)
        direction = _descent(study, parameters, centre, contributions)
    if study.training.local.control_variates:
        control = moved_control(
            part_of(memory, CONTROL),
            contributions,
            lr=study.training.local.lr,
            n_sites=len(study.sites),
        )
        new_memory |= prefixed(CONTROL, control)
    pulls = _pulls(parameters, updates, memory)
    return Aggregated(direction, new_memory | pulls, _facts(pulls))


def _of_groups(
    study: Study, parameters: Arrays, sums: Sequence[Contribution], memory: Arrays
) -> Aggregated:
    """Return the direction by the study's rule over sums of groups without a named liar."""
    shapes = {name: array.shape for name, array in parameters.items()}
    history = remembered(study, sums, memory, shapes)
    named = suspects(study, history, shapes)
    remaining = [total for total in sums if not set(total.members) & set(named)] or sums
    rule, updates = study.training.aggregation, _per_patient(study, remaining)
    updates = shortened(updates, rule.norm_factor)
    centre = robust_mean(updates, _sizes(study, remaining), rule, part_of(memory, CENTRE))
    direction = _descent(study, parameters, centre, sums)
    facts: dict[str, JsonValue] = {STEERING: list(named)} if named else {}
    return Aggregated(direction, history | prefixed(CENTRE, centre), facts)


def control_of(memory: Arrays) -> Arrays:
    """Return what sites need of the memory: `control/<parameter>`, float32."""
    return {n: a.astype("float32") for n, a in memory.items() if n.startswith(CONTROL)}


def _pulls(parameters: Arrays, updates: Mapping[str, Arrays], memory: Arrays) -> Arrays:
    """Return the monitor's part of the memory; a round with less than three sites adds nothing."""
    if len(updates) < MINIMUM_SITES:
        return {name: value for name, value in memory.items() if name.startswith(PULL)}
    shapes = {name: array.shape for name, array in parameters.items()}
    return prefixed(PULL, remember_updates(part_of(memory, PULL), updates, shapes))


def _facts(pulls: Arrays) -> dict[str, JsonValue]:
    cosines = cosines_with_rest(part_of(pulls, PULL))
    return {"cosine_with_rest": dict(cosines)} if cosines else {}


def _plain(study: Study, parameters: Arrays, contributions: Sequence[Contribution]) -> Arrays:
    if study.training.local.kind == "epochs":
        return mean_delta(_publicly_weighted(study, contributions))
    return descent(study, parameters, gradient_sum(contributions))


def _publicly_weighted(study: Study, contributions: Sequence[Contribution]) -> list[Contribution]:
    """Return the contributions with weights: public counts where a private site states none."""
    if not study.privacy.is_private:
        return list(contributions)
    public = study.nominal_by_site
    return [
        replace(c, weights=dict.fromkeys(map(block_of, c.arrays), public[c.site_id]))
        for c in contributions
    ]


def _descent(
    study: Study, parameters: Arrays, mean: Arrays, contributions: Sequence[Contribution]
) -> Arrays:
    if study.training.local.kind == "epochs":
        return mean
    patients = sum(_sizes(study, contributions).values())
    return descent(study, parameters, {name: value * patients for name, value in mean.items()})


def _per_patient(study: Study, contributions: Sequence[Contribution]) -> dict[str, Arrays]:
    """Return each site's update as a mean over its patients: a delta is one already."""
    if study.training.local.kind == "epochs":
        return {c.site_id: c.arrays for c in contributions}
    sizes = _sizes(study, contributions)
    return {
        c.site_id: {n: a.astype("float64") / sizes[c.site_id] for n, a in c.arrays.items()}
        for c in contributions
    }


def _sizes(study: Study, contributions: Sequence[Contribution]) -> Mapping[str, float]:
    """Return site or group -> patients: the public count, or in mode none the count it sent."""
    public = study.nominal_by_site

    def size(c: Contribution) -> float:
        announced = sum(public[name] for name in c.members or (c.site_id,))
        return max(max(c.weights.values(), default=announced), 1.0)

    return {c.site_id: size(c) for c in contributions}


def moved_control(
    control: Arrays, contributions: Sequence[Contribution], *, lr: float, n_sites: int
) -> Arrays:
    """Return c + (1/N) sum over the answering sites of their control variates' moves, float64.

    SCAFFOLD, option II (Karimireddy et al., 2020): after K steps of size lr that moved the model
    by delta, a site's control variate moves by -c - delta / (K lr). The server knows c, lr and
    delta and is told K, so the site need not send its control variate: half the traffic.

    Args:
        control: c, by parameter; missing ones are zero (first round).
        contributions: Validated deltas with their number of steps.
        lr: Step size of the site optimiser (plain SGD).
        n_sites: N, all sites of the roster, whether they answered or not.
    """
    control_sum = {name: np.asarray(value, dtype=np.float64) for name, value in control.items()}
    for contribution in sorted(contributions, key=lambda c: c.site_id):
        for name, delta in contribution.arrays.items():
            before = np.asarray(control.get(name, np.zeros(delta.shape)), dtype=np.float64)
            change = -before - delta.astype(np.float64) / (contribution.steps * lr)
            control_sum[name] = control_sum.get(name, np.zeros(delta.shape)) + change / n_sites
    return control_sum
