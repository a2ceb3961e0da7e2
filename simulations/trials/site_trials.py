"""Train many federations of gradient sums together, hospital by hospital, without transport.

For experiments over rules, lies, folds and seeds.

Gradients of all trials and hospitals are computed in one call a round; clipping, integer noise,
the server's norm bound, aggregation rule and optimiser are the product's own. A reply that the
server would refuse (too long, or not finite) is left out of the round, as there. Left out are
messages, ledgers and the masks of the secure sum, which cancel to the last bit in the opened sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.data.dataset import PatientDataset
from common.models.base.parameters import block_of, expected_shapes, to_arrays
from common.privacy.integer_encoding import flatten, unflatten
from common.study.modalities import MODALITIES, Modality
from common.study.private_round import encoding_of
from common.study.study import Study
from common.wire import Arrays, joint_norm
from server.aggregate.contribution import Contribution
from server.aggregate.gradient_mean import descent, gradient_sum
from server.aggregate.method import Aggregated, aggregate
from server.exchange.validate_reply import ExpectedUpdate
from server.session.checkpoint import Checkpoint, RoundRecord, advance, final_model
from simulations.engines.circumstances import Poison
from simulations.engines.unreliable_site import poisoned
from simulations.trials.mechanism_trials import TrialGradients, shared_model


@dataclass(frozen=True)
class SiteTrial:
    """One federation.

    Attributes:
        study: Gradient sums, in any mode.
        sites: Site -> rows of its training patients.
        liar: The poisoned site, if one is.
        poison: What it sends; None: the truth. Wrong labels belong into the rows instead.
    """

    study: Study
    sites: dict[str, npt.NDArray[np.intp]]
    liar: str = ""
    poison: Poison | None = None


def train_by_site(patients: PatientDataset, trials: Sequence[SiteTrial]) -> list[Arrays]:
    """Return the final model of every trial, in order.

    Args:
        patients: All patients of all trials.
        trials: Studies alike in endpoints, features, model and number of rounds.

    Raises:
        ConfigError: The studies differ in more than that, or the model is not of uniform shape.
        PrivacyError: A plan does not work for its number of sites.
    """
    study, model = shared_model([trial.study for trial in trials])
    shapes = expected_shapes(model)
    owners = [(i, site) for i, trial in enumerate(trials) for site in sorted(trial.sites)]
    rows = [trials[i].sites[site] for i, site in owners]
    seen = [patients.select(own).modalities for own in rows]
    gradients = TrialGradients(model, study, patients, rows)
    plans = [trials[i].study.privacy for i, _ in owners]
    clips = [plan.clip if plan.is_private else None for plan in plans]
    states = [Checkpoint(round=0, parameters=to_arrays(model)) for _ in trials]
    for number in range(1, study.training.rounds + 1):
        sums = gradients.sums([states[i].parameters for i, _ in owners], clips)
        replies: list[list[Contribution]] = [[] for _ in trials]
        for (i, site), total, present in zip(owners, sums, seen, strict=True):
            sent = _sent(trials[i], site, unflatten(total, shapes), present)
            if trials[i].poison is None or _accepted(trials[i].study, site, sent, states[i]):
                replies[i].append(Contribution(site, sent, _told_weights(trials[i], site)))
        states = [
            _next(trial.study, state, reply, number)
            for trial, state, reply in zip(trials, states, replies, strict=True)
        ]
    return [final_model(state) for state in states]


def _sent(trial: SiteTrial, site: str, arrays: Arrays, present: Sequence[Modality]) -> Arrays:
    """Return what a site adds to a round; in mode local without blocks that it has no data for."""
    plan = trial.study.privacy
    if plan.mode == "local":
        lacking = set(MODALITIES) - set(present)
        arrays = {name: a for name, a in arrays.items() if block_of(name) not in lacking}
    if plan.is_private:
        shapes = {name: array.shape for name, array in arrays.items()}
        encoding = encoding_of(trial.study, shapes)
        arrays = dict(unflatten(encoding.decode(encoding.noised(flatten(arrays))), shapes))
    if plan.mode != "distributed":
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    if site == trial.liar and trial.poison is not None:
        return poisoned(arrays, trial.poison)
    return arrays


def _told_weights(trial: SiteTrial, site: str) -> dict[str, float]:
    """Return the number of patients that a site tells in mode none, and no other mode."""
    if trial.study.privacy.is_private:
        return {}
    return {"heads": float(len(trial.sites[site]))}


def _accepted(study: Study, site: str, sent: Arrays, state: Checkpoint) -> bool:
    """Return whether the server would take this update: finite, and no longer than possible."""
    shapes = {name: array.shape for name, array in sent.items()}
    bound = ExpectedUpdate(study, shapes, joint_norm(state.parameters)).norm_bound
    length = joint_norm(sent)
    size = sum(array.size for array in sent.values())
    return bool(np.isfinite(length)) and length <= bound(size, site)


def _next(
    study: Study, state: Checkpoint, updates: Sequence[Contribution], number: int
) -> Checkpoint:
    if study.privacy.mode == "distributed":  # the server sees the opened sum alone
        opened = descent(study, state.parameters, gradient_sum(updates))
        combined = Aggregated(opened, dict(state.memory))
    else:
        combined = aggregate(study, state.parameters, updates, state.memory)
    record = RoundRecord(
        round=number,
        sites=[update.site_id for update in updates],
        update_norm=0.0,
        facts=combined.facts,
    )
    following = advance(study, state, combined.direction, record, combined.memory)
    del following.history[:-1]
    return following
