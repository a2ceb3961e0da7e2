"""Train the private mechanism many times together: the same patients under many plans.

A trial is what `simulations.trials.site_trials` trains hospital by hospital. Small linear heads
cost next to nothing, a call into the differentiation engine does; so the gradients of all trials
are computed in one call a round. Clipping, integer encoding, noise sampler, server optimiser and
averaging are the product's own. The clipped gradients of all sites are added before they are
rounded to integers, not after: sums of clipped gradients are exact, so this moves a coordinate by
at most one integer step a site, 1e-4 of a patient's clip or less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from common.models.base.parameters import expected_shapes, to_arrays, trainable
from common.models.losses.multitask import PatientObjective
from common.privacy.clipping import ClippedSum
from common.privacy.integer_encoding import flatten, unflatten
from common.privacy.noise import skellam
from common.study.private_round import encoding_of
from common.study.study import Study
from common.wire import Arrays
from server.aggregate.gradient_mean import descent
from server.session.checkpoint import Checkpoint, RoundRecord, advance, final_model

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One plan over some of the patients; every site has patients with every modality.

    Attributes:
        study: Its roster says how many sites add noise.
        rows: Indices of the training patients of all its sites together.
    """

    study: Study
    rows: npt.NDArray[np.intp]


def train_together(patients: PatientDataset, trials: Sequence[Trial]) -> list[Arrays]:
    """Return the final model of every trial, in order.

    Args:
        patients: All patients of all trials.
        trials: Studies alike in endpoints, features, model and number of rounds; privacy, roster
            and public counts may differ.

    Raises:
        ConfigError: The studies differ in more than that, or the model is not of uniform shape.
        PrivacyError: A plan does not work for its number of sites.
    """
    study, model = shared_model([trial.study for trial in trials])
    shapes = expected_shapes(model)
    gradients = TrialGradients(model, study, patients, [trial.rows for trial in trials])
    releases = [_release(trial.study, shapes) for trial in trials]
    states = [Checkpoint(round=0, parameters=to_arrays(model)) for _ in trials]
    for number in range(1, study.training.rounds + 1):
        sums = gradients.sums([state.parameters for state in states], _clips(trials))
        for i, trial in enumerate(trials):
            total = unflatten(releases[i](sums[i]), shapes)
            direction = descent(trial.study, states[i].parameters, dict(total))
            record = RoundRecord(round=number, sites=[], update_norm=0.0)
            states[i] = advance(trial.study, states[i], direction, record)
            states[i].history.clear()
    return [final_model(state) for state in states]


def shared_model(studies: Sequence[Study]) -> tuple[Study, FusedModel]:
    """Return the first study and its model, after a check that the others train the same alike.

    Raises:
        ConfigError: There is none, they differ, or the model is not of uniform shape.
    """
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


def _clips(trials: Sequence[Trial]) -> list[float | None]:
    plans = [trial.study.privacy for trial in trials]
    return [plan.clip if plan.is_private else None for plan in plans]


def _release(study: Study, shapes: Mapping[str, tuple[int, ...]]) -> Callable[[Vector], Vector]:
    """Return how the clipped sum over all sites becomes the sum the server sees.

    Skellam draws of the sites add up to one Skellam draw of the summed variance.
    """
    if not study.privacy.is_private:
        return lambda total: total
    encoding = encoding_of(study, shapes)
    variance = encoding.share_variance * len(study.sites)

    def release(total: Vector) -> Vector:
        integers = np.rint(total / encoding.step).astype(np.int64)
        return encoding.decode(integers + skellam(encoding.dimension, variance))

    return release


class TrialGradients:
    """Sums of clipped gradients of several models, each over its own patients."""

    def __init__(
        self,
        model: FusedModel,
        study: Study,
        patients: PatientDataset,
        rows: Sequence[npt.NDArray[np.intp]],
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
        trained = {f"model.{name}" for name in self._names}
        frozen = {
            name: tensor.detach()
            for name, tensor in objective.named_parameters()
            if name not in trained
        }

        def loss_of(parameters: dict[str, Tensor], patient: PatientBatch) -> Tensor:
            one = pytree.tree_map(lambda tensor: tensor.unsqueeze(0), patient)
            loss: Tensor = functional_call(objective, {**frozen, **parameters}, (one,))
            return loss.sum()

        self._of_all = vmap(grad_and_value(loss_of), in_dims=(0, 0), randomness="error")

    def sums(self, models: Sequence[Arrays], clips: Sequence[float | None]) -> list[Vector]:
        """Return the flat clipped sum (d,) of every trial at its own model."""
        stacked = {
            f"model.{name}": torch.from_numpy(np.stack([arrays[name] for arrays in models]))
            for name in self._names
        }
        each = {name: values[self._owner] for name, values in stacked.items()}
        gradients, losses = self._of_all(each, self._batch)
        rows = torch.cat([gradients[f"model.{n}"].flatten(1) for n in self._names], dim=1).detach()
        found, start = [], 0
        for size, clip in zip(self._sizes, clips, strict=True):
            own = slice(start, start + size)
            total = ClippedSum(self._shapes, clip)
            total.add(rows[own], losses[own].detach())
            found.append(flatten(total.result().arrays))
            start += size
        return found
