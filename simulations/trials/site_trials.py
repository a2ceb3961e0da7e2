"""Train many federations of gradient sums together, hospital by hospital, without transport.

For experiments over plans, rules, lies, folds and seeds. Small linear heads cost next to nothing,
a call into the differentiation engine does; so gradients of all trials and hospitals are computed
in one call a round. Clipping, integer noise, the server's norm bound, aggregation rule and
optimiser are the product's own. A reply that the server would refuse (too long, or not finite) is
left out of the round, as there. Left out are messages, ledgers and the masks of the secure sum,
which cancel to the last bit in the opened sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.utils import _pytree as pytree

from client.data.dataset import PatientDataset
from common.cohort.batch import PatientBatch
from common.errors import ConfigError
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import block_of, expected_shapes, to_arrays, trainable
from common.models.losses.multitask import PatientObjective
from common.privacy.clipping import ClippedSum
from common.privacy.integer_encoding import flatten, unflatten
from common.privacy.noise import skellam
from common.privacy.plan import FEWEST_GROUPS
from common.privacy.sum_norm import capped, longest_sum
from common.study.modalities import MODALITIES, Modality
from common.study.private_round import encoding_of
from common.study.study import Study
from common.wire import Arrays, joint_norm
from server.aggregate.contribution import FEDERATION, Contribution
from server.aggregate.gradient_mean import gradient_sum
from server.aggregate.method import aggregate
from server.exchange.validate_reply import ExpectedUpdate
from server.session.checkpoint import Checkpoint, RoundRecord, advance, final_model
from simulations.engines.circumstances import Poison
from simulations.engines.unreliable_site import poisoned

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SiteTrial:
    """One federation.

    Attributes:
        study: Gradient sums, in any mode.
        sites: Site -> rows of its training patients. One entry may stand for several hospitals of
            the roster: their clipped gradients are added before they are rounded to integers, not
            after, which moves a coordinate by at most one integer step a hospital (1e-4 of a
            patient's clip or less), and their noise is drawn in one draw of the summed variance.
        liar: The poisoned site, if one is.
        poison: What it sends; None: the truth. Wrong labels belong into the rows instead.
        steer: Mode distributed: the liar sends no gradients but a lie of this length, as a share
            of clip times nominal patients of the sum it is in, straight against what all others
            send in this round, which it knows; 0: the truth.
        bounded: Whether the server refuses a sum that is too long.
    """

    study: Study
    sites: dict[str, Rows]
    liar: str = ""
    poison: Poison | None = None
    steer: float = 0.0
    bounded: bool = True


def train_by_site(patients: PatientDataset, trials: Sequence[SiteTrial]) -> list[Arrays]:
    """Return the final model of every trial, in order.

    Args:
        patients: All patients of all trials.
        trials: Studies alike in endpoints, features, model and number of rounds; privacy, roster
            and public counts may differ.

    Raises:
        ConfigError: The studies differ in more than that, or the model is not of uniform shape.
        PrivacyError: A plan does not work for its number of sites.
    """
    study, model = _shared_model([trial.study for trial in trials])
    shapes = expected_shapes(model)
    owners = [(i, site) for i, trial in enumerate(trials) for site in sorted(trial.sites)]
    rows = [trials[i].sites[site] for i, site in owners]
    modalities = [patients.select(own).modalities for own in rows]
    gradients = _TrialGradients(model, study, patients, rows)
    plans = [trials[i].study.privacy for i, _ in owners]
    clips = [plan.clip if plan.is_private else None for plan in plans]
    states = [Checkpoint(round=0, parameters=to_arrays(model)) for _ in trials]
    for number in range(1, study.training.rounds + 1):
        sums = gradients.sums([states[i].parameters for i, _ in owners], clips)
        replies: list[list[Contribution]] = [[] for _ in trials]
        for (i, site), total, present in zip(owners, sums, modalities, strict=True):
            update = _sent(trials[i], site, unflatten(total, shapes), present)
            if trials[i].poison is None or _accepted(trials[i].study, site, update, states[i]):
                replies[i].append(Contribution(site, update, _told_weights(trials[i], site)))
        truths = [np.zeros(0) for _ in trials]
        for (i, site), total in zip(owners, sums, strict=True):
            if trials[i].steer and site != trials[i].liar:
                truths[i] = truths[i] + total if len(truths[i]) else total
        states = [
            _next(trial, state, reply, truth, number)
            for trial, state, reply, truth in zip(trials, states, replies, truths, strict=True)
        ]
    return [final_model(state) for state in states]


def _shared_model(studies: Sequence[Study]) -> tuple[Study, FusedModel]:
    """Return the first study and its model, after a check that the others train the same alike."""
    if not studies:
        raise ConfigError("no trial was given")
    first = studies[0]
    for other in studies:
        same = (first.endpoints, first.features, first.model, first.training.rounds)
        if (other.endpoints, other.features, other.model, other.training.rounds) != same:
            raise ConfigError(
                "trials must be alike in endpoints, features, model and rounds",
                where=f"study {other.study_id}",
            )
        if other.training.task_weights != first.training.task_weights:
            raise ConfigError("trials must weigh tasks alike", where=f"study {other.study_id}")
    model = build_model(first)
    if not model.uniform_shape:
        raise ConfigError(
            f"model '{first.model.name}' cannot be trained many trials at once",
            cure="train it with simulations.trials.memory_training.train_in_memory",
        )
    return first, model


def _sent(trial: SiteTrial, site: str, arrays: Arrays, present: Sequence[Modality]) -> Arrays:
    """Return what a site adds to a round; in mode local without blocks that it has no data for."""
    plan = trial.study.privacy
    if plan.mode == "local":
        lacking = set(MODALITIES) - set(present)
        arrays = {name: a for name, a in arrays.items() if block_of(name) not in lacking}
    if plan.is_private:
        shapes = {name: array.shape for name, array in arrays.items()}
        encoding = encoding_of(trial.study, shapes)
        shares = len(trial.study.sites) / len(trial.sites)
        variance = encoding.share_variance * shares
        vector = flatten(arrays)
        if plan.mode == "distributed":
            vector = capped(vector, plan.clip * _nominal(trial, [site]))
        integers = encoding.encode(vector) + skellam(encoding.dimension, variance)
        arrays = dict(unflatten(encoding.decode(integers), shapes))
    if plan.mode != "distributed":
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    if site == trial.liar and trial.poison is not None:
        return poisoned(arrays, trial.poison)
    return arrays


def _told_weights(trial: SiteTrial, site: str) -> dict[str, float]:
    """Return the number of patients that a site sends, in mode none only."""
    if trial.study.privacy.is_private:
        return {}
    return {"heads": float(len(trial.sites[site]))}


def _accepted(study: Study, site: str, update: Arrays, state: Checkpoint) -> bool:
    """Return whether the server would take this update: finite, and no longer than possible."""
    shapes = {name: array.shape for name, array in update.items()}
    bound = ExpectedUpdate(study, shapes, joint_norm(state.parameters)).norm_bound
    length = joint_norm(update)
    size = sum(array.size for array in update.values())
    return bool(np.isfinite(length)) and length <= bound(size, site)


def _next(
    trial: SiteTrial,
    state: Checkpoint,
    updates: Sequence[Contribution],
    truth: npt.NDArray[np.float64],
    number: int,
) -> Checkpoint:
    study = trial.study
    if study.privacy.mode == "distributed":
        updates = _opened(trial, updates, truth, number)
        least = FEWEST_GROUPS if study.privacy.groups > 1 else 1
        updates = updates if len(updates) >= least else []
    aggregation = aggregate(study, state.parameters, updates, state.memory)
    record = RoundRecord(
        round=number,
        sites=[update.site_id for update in updates],
        update_norm=0.0,
        facts=aggregation.facts,
    )
    following = advance(study, state, aggregation.direction, record, aggregation.memory)
    del following.history[:-1]
    return following


def _opened(
    trial: SiteTrial,
    updates: Sequence[Contribution],
    truth: npt.NDArray[np.float64],
    number: int,
) -> list[Contribution]:
    """Return what the server sees in mode distributed: the sum of all, or of each random group.

    Args:
        trial: The federation.
        updates: What each site adds.
        truth: Sum of the others' clipped gradients, which a steering liar pulls against.
        number: The round.
    """
    study = trial.study
    order = np.random.default_rng([study.training.seed, number]).permutation(len(updates))
    opened = []
    for place in range(study.privacy.groups):
        members = [updates[index] for index in order[place :: study.privacy.groups]]
        names = tuple(sorted(member.site_id for member in members))
        patients = _nominal(trial, names)
        arrays = gradient_sum([m for m in members if not trial.steer or m.site_id != trial.liar])
        shapes = {name: array.shape for name, array in arrays.items()}
        if trial.steer and trial.liar in names:
            length = trial.steer * study.privacy.clip * patients
            lie = unflatten(truth * (-length / np.linalg.norm(truth)), shapes)
            arrays = {name: array + lie[name] for name, array in arrays.items()}
        n_sites = len(names) * len(study.sites) // len(trial.sites)
        longest = longest_sum(encoding_of(study, shapes), patients, n_sites)
        if not trial.bounded or joint_norm(arrays) <= longest:
            grouped = study.privacy.groups > 1
            opened.append(
                Contribution(f"group-{place}", arrays, members=names)
                if grouped
                else Contribution(FEDERATION, arrays)
            )
    return opened


def _nominal(trial: SiteTrial, sites: Sequence[str]) -> float:
    """Return the nominal patients of all hospitals that these entries stand for."""
    study = trial.study
    if len(trial.sites) < len(study.sites):
        return study.training.nominal_patients * len(sites) / len(trial.sites)
    return sum(study.nominal_by_site[site] for site in sites)


class _TrialGradients:
    """Sums of clipped gradients of several models, each over its own patients."""

    def __init__(
        self, model: FusedModel, study: Study, patients: PatientDataset, rows: Sequence[Rows]
    ) -> None:
        with torch.no_grad():
            everyone = model.eval().prepare(patients.batch(range(len(patients))))
        order = torch.as_tensor(np.concatenate(list(rows)))
        self._batch = pytree.tree_map(lambda tensor: tensor[order], everyone)
        self._sizes = [len(own) for own in rows]
        self._owner = torch.repeat_interleave(torch.tensor(self._sizes))
        self._shapes = expected_shapes(model)
        self._names = list(trainable(model))
        objective = PatientObjective(model, study)
        prefixed_names = {f"model.{name}" for name in self._names}
        frozen = {
            name: tensor.detach()
            for name, tensor in objective.named_parameters()
            if name not in prefixed_names
        }

        def loss_of(parameters: dict[str, Tensor], patient: PatientBatch) -> Tensor:
            one = pytree.tree_map(lambda tensor: tensor.unsqueeze(0), patient)
            loss: Tensor = functional_call(objective, {**frozen, **parameters}, (one,))
            return loss.sum()

        self._of_all = vmap(grad_and_value(loss_of), in_dims=(0, 0), randomness="error")

    def sums(
        self, models: Sequence[Arrays], clips: Sequence[float | None]
    ) -> list[npt.NDArray[np.float64]]:
        """Return the flat clipped sum (d,) of every group of patients at its own model."""
        columns = {
            f"model.{name}": torch.from_numpy(np.stack([arrays[name] for arrays in models]))
            for name in self._names
        }
        each = {name: values[self._owner] for name, values in columns.items()}
        gradients, losses = self._of_all(each, self._batch)
        rows = torch.cat([gradients[f"model.{n}"].flatten(1) for n in self._names], dim=1).detach()
        sums = []
        groups = zip(
            torch.split(rows, self._sizes), torch.split(losses, self._sizes), clips, strict=True
        )
        for own, own_losses, clip in groups:
            total = ClippedSum(self._shapes, clip)
            total.add(own, own_losses.detach())
            sums.append(flatten(total.result().arrays))
        return sums
