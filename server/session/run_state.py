"""Store the state of a run on disk.

`enrolling -> ready -> round -> evaluating -> done | failed | stopped`; a failed or stopped run
continues after its last committed round.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from common.cohort.cohort_counts import CohortCounts
from common.contract import Contract
from common.errors import ErrorCode, RunError
from common.privacy.plan import Release
from common.storage.atomic_file import write_text
from common.study.modalities import Modality
from common.study.study import Identifier

RunPhase = Literal["enrolling", "ready", "round", "evaluating", "done", "failed", "stopped"]

STATE_FILE = "run.json"


class SiteState(Contract):
    """What the server knows about one site of the run."""

    enrolled: bool = False
    refusal_code: str | None = None
    modalities: list[Modality] = Field(default_factory=list)
    release: Release = "dp"
    cohort: CohortCounts | None = Field(
        default=None, description="data funnel, sent under release internal only"
    )
    epsilon_spent: float = 0.0
    evaluation_epsilon_spent: float = 0.0
    ledger_head: str | None = None
    last_round: int = 0
    online: bool | None = Field(
        default=None, description="whether its node could be reached after the last round"
    )

    @property
    def is_revoked(self) -> bool:
        """Whether the hospital was revoked, before or while the study ran."""
        return self.refusal_code == ErrorCode.REVOKED

    @property
    def took_part(self) -> bool:
        """Whether it takes part, or did until it left."""
        return self.enrolled or self.last_round > 0


class RunState(Contract):
    """State of one run; written after every change, whole or not at all."""

    run_id: Identifier
    study_digest: str
    code_digest: str
    phase: RunPhase = "enrolling"
    round: int = Field(default=0, ge=0, description="last committed round")
    rounds: int = Field(gt=0)
    reason: str | None = Field(default=None, description="why the run failed or stopped")
    sites: dict[str, SiteState] = Field(default_factory=dict)
    updated: str | None = Field(default=None, description="when this was written, UTC")

    def save(self, run_dir: Path) -> None:
        """Write the state durably."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        state = self.model_copy(update={"updated": now})
        text = json.dumps(state.model_dump(mode="json"), indent=1, sort_keys=True)
        write_text(run_dir / STATE_FILE, text)

    def with_site(self, site_id: str, **changes: object) -> "RunState":
        """Return the state with one site changed."""
        site = self.sites.get(site_id, SiteState()).model_copy(update=changes)
        return self.model_copy(update={"sites": {**self.sites, site_id: site}})

    @property
    def enrolled(self) -> tuple[str, ...]:
        """Sites that accepted the study, sorted."""
        return tuple(sorted(name for name, site in self.sites.items() if site.enrolled))

    @property
    def revoked(self) -> frozenset[str]:
        """Sites that were revoked."""
        return frozenset(name for name, site in self.sites.items() if site.is_revoked)

    @property
    def expelled(self) -> frozenset[str]:
        """Sites whose part of a secure sum contradicted itself."""
        code = ErrorCode.FALSE_SHARES
        return frozenset(name for name, site in self.sites.items() if site.refusal_code == code)


def load_run_state(run_dir: Path) -> RunState | None:
    """Return the stored state, or None for a folder without a run.

    Raises:
        RunError: The file is damaged.
    """
    path = run_dir / STATE_FILE
    if not path.is_file():
        return None
    try:
        return RunState.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise RunError(
            "the state of the run cannot be read",
            where=str(path),
            why="it was changed by hand, or written by another version",
            cure="restore it from a backup, or start again in an empty folder",
        ) from None
