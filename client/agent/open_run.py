"""Open a run this hospital agreed to, with its patients, and keep it open between calls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from client.agent.accepted_run import accepted_run
from client.agent.admission import (
    agreed_release,
    check_policy,
    check_roster,
    parse_study,
)
from client.data.cohort_check import check_size
from client.data.dataset import PatientDataset
from client.data.patient_source import block_weights
from client.data.split import hold_fraction, load_or_create_split_key, sides
from client.training.device import choose_device
from client.training.site_memory import SiteMemory
from common.cohort.cohort_counts import CohortCounts
from common.cohort.manifest import read_manifest
from common.errors import ProtocolError
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import block_of, expected_shapes
from common.models.base.validators import check_private
from common.models.base.weights_origin import check_origin
from common.study.modalities import MODALITIES, Modality
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.trust.plugins import check_plugins
from common.trust.roster import Roster

DatasetProvider = Callable[[Study], PatientDataset]
"""Returns this hospital's patients for a study."""


@dataclass(frozen=True)
class OpenRun:
    """An accepted run with its patients.

    Attributes:
        site_id: The hospital.
        run_id: Identifier of the run.
        study: The approved study.
        study_digest: Its digest.
        train: Training patients.
        held_out: Patients who only pay for evaluation.
        modalities: Modalities this hospital has any patient with.
        device: Where to compute.
        memory: What this hospital keeps for itself from round to round.
        counts: The data funnel; leaves the hospital under release internal only.
    """

    site_id: str
    run_id: str
    study: Study
    study_digest: str
    train: PatientDataset
    held_out: PatientDataset
    modalities: tuple[Modality, ...]
    device: torch.device
    memory: SiteMemory
    counts: CohortCounts

    @cached_property
    def model(self) -> FusedModel:
        """The study's model; its trained parameters are overwritten in every call."""
        return build_model(self.study)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every trained parameter."""
        return expected_shapes(self.model)

    @cached_property
    def block_weights(self) -> dict[str, float]:
        """Training patients behind each block; leaves the hospital in mode none only."""
        return block_weights(self.model, self.train)

    @cached_property
    def own_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every trained parameter of the modalities that the handshake names."""
        absent = set(MODALITIES) - set(self.modalities)
        return {name: s for name, s in self.shapes.items() if block_of(name) not in absent}


class CurrentRun:
    """Keeps the run that was asked about last open, with its patients.

    Args:
        provider: Returns the hospital's patients for a study.
    """

    def __init__(self, provider: DatasetProvider) -> None:
        self.provider = provider
        self.opened: OpenRun | None = None

    def admit(self, policy: SitePolicy, run_id: str, study: Study) -> OpenRun:
        """Open a run and keep it; see `open_run`."""
        self.opened = open_run(policy, run_id, study, self.provider)
        return self.opened

    def take(self, policy: SitePolicy, roster: Roster | None, run_id: str) -> OpenRun:
        """Return an accepted run; policy and roster are checked again in every call.

        Raises:
            TumorboardError: See `accepted_study` and `open_run`.
        """
        study = self.study(policy, roster, run_id)
        if self.opened is None or self.opened.run_id != run_id:
            self.opened = open_run(policy, run_id, study, self.provider)
        return self.opened

    def study(self, policy: SitePolicy, roster: Roster | None, run_id: str) -> Study:
        """Return the study of an accepted run; policy and roster are checked, no patient is read.

        Raises:
            TumorboardError: See `accepted_study`.
        """
        if self.opened is None or self.opened.run_id != run_id:
            return accepted_study(policy, run_id, roster)
        check_policy(self.opened.study, policy, self.opened.study_digest)
        check_roster(self.opened.study, policy.site_id, roster, accepted=True)
        return self.opened.study

    def answer_seconds(self, policy: SitePolicy, run_id: str) -> float | None:
        """Return at which multiples of time this run's answers leave; None for at once."""
        if self.opened is not None and self.opened.run_id == run_id:
            return self.opened.study.privacy.answer_seconds
        accepted = accepted_run(policy, run_id)
        return parse_study(accepted.study_json).privacy.answer_seconds if accepted else None

    def close(self) -> None:
        """Forget the run; the next call opens it again."""
        self.opened = None


def accepted_study(policy: SitePolicy, run_id: str, roster: Roster | None = None) -> Study:
    """Return the study of a run this hospital agreed to; all but its patients is checked again.

    Args:
        policy: The hospital's policy.
        run_id: The run.
        roster: The last known roster; None without a consortium.

    Raises:
        ProtocolError: The run was never accepted here, approval was withdrawn, or the roster
            does not admit this hospital any more (ROSTER).
    """
    accepted = accepted_run(policy, run_id)
    if accepted is None:
        raise ProtocolError(
            "this hospital does not know the run", where=run_id, cure="repeat the handshake"
        )
    study = parse_study(accepted.study_json)
    check_policy(study, policy)
    check_roster(study, policy.site_id, roster, accepted=True)
    return study


def open_run(policy: SitePolicy, run_id: str, study: Study, provider: DatasetProvider) -> OpenRun:
    """Return a run with its patients, split into training and held out.

    Raises:
        ConfigError: The study uses code of another distribution than is installed here (PLUGIN).
        PrivacyError: The model of a private study has a layer that mixes patients, its weights
            are of doubtful origin (WEIGHTS_ORIGIN), or the study would move patients between
            training and held out (POLICY).
        TumorboardError: The cohort is too small or cannot be read.
    """
    check_plugins(study)
    model = build_model(study)
    if study.privacy.is_private:
        check_private(model)
    check_origin(study, model)
    dataset = provider(study)
    if not study.privacy.is_private:  # else the refusal would be an exact bit; see `site approve`
        check_size(len(dataset), policy)
    key = load_or_create_split_key(policy.split_key_file)
    if study.privacy.is_private or agreed_release(study, policy) == "dp":
        hold_fraction(policy.split_key_file, study.training.test_fraction)
    indices = sides(dataset.patient_ids, key, study.training.test_fraction)
    train, held_out = (dataset.select(side) for side in indices)
    return OpenRun(
        site_id=policy.site_id,
        run_id=run_id,
        study=study,
        study_digest=study.digest(),
        train=train,
        held_out=held_out,
        modalities=_stated_modalities(study, policy, dataset),
        device=choose_device(policy.device),
        memory=SiteMemory(policy.state / "memory" / run_id),
        counts=_counts(dataset, train, held_out),
    )


def _stated_modalities(
    study: Study, policy: SitePolicy, dataset: PatientDataset
) -> tuple[Modality, ...]:
    """Return the modalities that leave in the handshake.

    In a private study they are what the hospital declares, for a single patient more or less
    would show in what the patients have; undeclared, all of the study. A declared modality without
    patients contributes noise alone.
    """
    if not study.privacy.is_private:
        return dataset.modalities
    return tuple(m for m in study.modalities if policy.modalities is None or m in policy.modalities)


def _counts(
    dataset: PatientDataset, train: PatientDataset, held_out: PatientDataset
) -> CohortCounts:
    records, (with_inputs, with_outcome) = dataset.records, dataset.screened
    return CohortCounts(
        listed=with_inputs,
        labelled=with_outcome,
        usable=records.n,
        train=len(train),
        held_out=len(held_out),
        observed={task: records.n_observed[task] for task in dataset.study.tasks},
        present=records.n_present,
    )


def stored_features(policy: SitePolicy) -> DatasetProvider:
    """Return the provider of a real hospital: its manifest and its feature store."""
    return lambda study: PatientDataset.from_store(
        study,
        read_manifest(policy.manifest),
        policy.feature_store,
        may_be_empty=study.privacy.is_private,
    )
