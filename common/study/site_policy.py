"""Declare a hospital's own rules; nothing the server sends can loosen them."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from common.contract import Contract
from common.privacy.plan import Mode
from common.study.modalities import Modality
from common.study.study import Identifier

RULES = (
    *("approvals", "allowed_modes", "allow_internal_evaluation", "minimum_cohort"),
    *("delta", "lifetime_epsilon", "lifetime_evaluation_epsilon", "modalities"),
)
"""What a running agent reads again before every call, so that a stricter rule holds at once."""


class Approval(Contract):
    """The hospital's consent to one study digest, with its own ceilings."""

    study_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    epsilon_ceiling: float = Field(gt=0)
    fallback_epsilon_ceiling: float | None = Field(
        default=None, gt=0, description="ceiling of training if all other hospitals collude"
    )
    evaluation_epsilon_ceiling: float | None = Field(
        default=None, gt=0, description="ceiling of all evaluations; None: an older consent"
    )
    evaluation_fallback_ceiling: float | None = Field(
        default=None, gt=0, description="ceiling of evaluation if all other hospitals collude"
    )
    exact_runs: int = Field(
        default=1, ge=1, description="runs whose exact tables may leave; release internal only"
    )


class SitePolicy(Contract):
    """`site.yaml`: paths, device and ceilings of one hospital.

    Relative paths are resolved against the folder of the file.
    """

    site_id: Identifier
    manifest: Path = Path("manifest.csv")
    feature_store: Path = Path("features")
    ledger: Path = Path("private/ledger.jsonl")
    split_key_file: Path = Field(
        default=Path("private/split.key"), description="secret key of the train/test hash"
    )
    state: Path = Field(default=Path("private/state"), description="sealed replies, agent state")
    identity_key: Path = Field(
        default=Path("private/identity.key"),
        description="Ed25519 private key of this hospital; signs its keys of the secure sum",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    approvals: list[Approval] = Field(default_factory=list)
    lifetime_epsilon: float = Field(default=10.0, gt=0, description="over all studies, training")
    lifetime_evaluation_epsilon: float = Field(default=20.0, gt=0, description="held-out patients")
    delta: float = Field(default=1e-5, gt=0, lt=1e-2)
    modalities: list[Modality] | None = Field(
        default=None,
        description="what this hospital has at all, said once and not read off the patients; "
        "None: everything a study asks for",
    )
    minimum_cohort: int = Field(
        default=20,
        ge=1,
        description="fewer usable patients: no approval of a private study, no training without "
        "privacy",
    )
    allowed_modes: list[Mode] = Field(default=["distributed", "local"])
    allow_internal_evaluation: bool = Field(
        default=False,
        description="exact tables and cohort counts may leave (not differentially private)",
    )

    def resolved(self, folder: Path) -> "SitePolicy":
        """Return the policy with absolute paths below `folder`."""
        names = ("manifest", "feature_store", "ledger", "split_key_file", "state", "identity_key")
        return self.model_copy(
            update={name: (folder / getattr(self, name)).resolve() for name in names}
        )

    def approval_of(self, study_digest: str) -> Approval | None:
        """Return the approval of this digest, or None."""
        return next((a for a in self.approvals if a.study_digest == study_digest), None)
