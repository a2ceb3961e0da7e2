"""A run this hospital agreed to: stored on disk, opened with its data when first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError

from client.agent.accepted_run import AcceptedRun
from client.agent.admission import (
    agreed_release,
    check_cohort,
    check_policy,
    check_roster,
    parse_study,
)
from client.data.dataset import PatientDataset
from client.data.split import hold_fraction, load_or_create_split_key, split
from client.training.device import choose_device
from client.training.site_memory import SiteMemory
from client.training.train import block_weights
from common.cohort.cohort_counts import CohortCounts
from common.cohort.manifest import read_manifest
from common.contract import canonical_json
from common.errors import ErrorCode, LedgerError, ProtocolError
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.models.base.validators import check_private
from common.storage.atomic_file import write_text
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

    def contributes_to(self, block: str) -> bool:
        """Return whether this hospital's patients can move a block.

        Which modalities a hospital has at all is a public fact about the hospital, not about a
        patient; it is told in the handshake.
        """
        return block not in MODALITIES or block in self.modalities


def remember_run(policy: SitePolicy, run: AcceptedRun) -> None:
    """Store an accepted run durably.

    Raises:
        ProtocolError: The run id was used for another study.
    """
    path = _path(policy, run.run_id)
    if path.is_file() and _read(path).study_digest != run.study_digest:
        raise ProtocolError(
            "the run id belongs to another study",
            where=str(path),
            why="replies are stored by run id and must never be mixed",
            code=ErrorCode.STUDY_DIGEST,
        )
    write_text(path, canonical_json(run.model_dump(mode="json")))


def was_accepted(policy: SitePolicy, run_id: str, study_digest: str) -> bool:
    """Return whether this hospital agreed to a run of a study before.

    Raises:
        LedgerError: The record of the run cannot be read.
    """
    path = _path(policy, run_id)
    return path.is_file() and _read(path).study_digest == study_digest


def load_run(
    policy: SitePolicy, run_id: str, provider: DatasetProvider, roster: Roster | None = None
) -> OpenRun:
    """Return an accepted run with its patients; all is checked again before data is read.

    Args:
        policy: The hospital's policy.
        run_id: The run.
        provider: Returns the patients.
        roster: The last known roster; None without a consortium.

    Raises:
        ProtocolError: The run was never accepted here, approval was withdrawn, or the roster
            does not admit this hospital any more (ROSTER).
        TumorboardError: The cohort is too small or cannot be read.
    """
    path = _path(policy, run_id)
    if not path.is_file():
        raise ProtocolError(
            "this hospital does not know the run", where=run_id, cure="repeat the handshake"
        )
    accepted = _read(path)
    study = parse_study(accepted.study_json)
    check_policy(study, policy)
    check_roster(study, policy.site_id, roster, accepted=True)
    return open_run(policy, accepted.run_id, study, provider)


def open_run(policy: SitePolicy, run_id: str, study: Study, provider: DatasetProvider) -> OpenRun:
    """Return a run with its patients, split into training and held out.

    Raises:
        ConfigError: The study uses code of another distribution than is installed here (PLUGIN).
        PrivacyError: The model of a private study has a layer that mixes patients, or the study
            would move patients between training and held out (POLICY).
        TumorboardError: The cohort is too small or cannot be read.
    """
    check_plugins(study)
    if study.privacy.is_private:
        check_private(build_model(study))
    dataset = provider(study)
    check_cohort(len(dataset), policy)
    key = load_or_create_split_key(policy.split_key_file)
    if study.privacy.is_private or agreed_release(study, policy) == "dp":
        hold_fraction(policy.split_key_file, study.training.test_fraction)
    train, held_out = split(dataset, key, study.training.test_fraction)
    return OpenRun(
        run_id=run_id,
        study=study,
        study_digest=study.digest(),
        train=train,
        held_out=held_out,
        modalities=dataset.modalities,
        device=choose_device(policy.device),
        memory=SiteMemory(policy.state / "memory" / run_id),
        counts=_counts(dataset, train, held_out),
    )


def _counts(
    dataset: PatientDataset, train: PatientDataset, held_out: PatientDataset
) -> CohortCounts:
    records, (listed, labelled) = dataset.records, dataset.screened
    return CohortCounts(
        listed=listed,
        labelled=labelled,
        usable=records.n,
        train=len(train),
        held_out=len(held_out),
        observed={task: records.n_observed[task] for task in dataset.study.tasks},
        present=records.n_present,
    )


def stored_features(policy: SitePolicy) -> DatasetProvider:
    """Return the provider of a real hospital: its manifest and its feature store."""

    def provide(study: Study) -> PatientDataset:
        return PatientDataset.from_store(
            study, read_manifest(policy.manifest), policy.feature_store
        )

    return provide


def _path(policy: SitePolicy, run_id: str) -> Path:
    return policy.state / "runs" / f"{run_id}.json"


def _read(path: Path) -> AcceptedRun:
    try:
        return AcceptedRun.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        raise LedgerError(
            "the record of an accepted run cannot be read",
            where=str(path),
            cure="restore it from backup, or remove it and let the server repeat the handshake",
        ) from None
