"""Record what happened to each item (patient and feature set): attempts, outcomes, reasons.

One JSON file per item in `<feature store>/.extraction/<feature>/<patient>.json`, written whole or
not at all. An attempt is recorded as `running` before it starts, so that a killed process
leaves a trace.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from common.contract import Contract
from common.storage.atomic_file import write_text

Outcome = Literal["running", "done", "empty", "failed", "interrupted"]


class ItemProblem(Contract):
    """One thing that went wrong with an item, in the words shown to the user."""

    code: str
    reason: str
    where: str = ""
    why: str = ""
    cure: str = ""


class ItemAttempt(Contract):
    """One try at one item.

    `done`: the feature file was written; `problems` names raw files set aside. `empty`: the raw
    files hold nothing usable, settled until they change. `failed`: an error. `interrupted`: the
    process was killed.
    """

    started: datetime
    input_digest: str
    fingerprint: str
    pid: int
    outcome: Outcome = "running"
    seconds: float | None = None
    tokens: int | None = Field(default=None, description="rows of the feature file")
    problems: list[ItemProblem] = Field(default_factory=list)


class ItemState(Contract):
    """All attempts at one item, oldest first."""

    patient_id: str
    feature: str
    attempts: list[ItemAttempt] = Field(default_factory=list)

    @property
    def last(self) -> ItemAttempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    def settled(self, input_digest: str, fingerprint: str) -> ItemAttempt | None:
        """Return the last attempt if it ended (done or empty) on the same input and extractor."""
        last = self.last
        same = last and (last.input_digest, last.fingerprint) == (input_digest, fingerprint)
        return last if same and last and last.outcome in ("done", "empty") else None


class StateStore:
    """The states of one feature store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / ".extraction"

    def path(self, feature: str, patient_id: str) -> Path:
        """Return the file of one item."""
        return self.folder / feature / f"{patient_id}.json"

    def load(self, feature: str, patient_id: str) -> ItemState:
        """Return the state of an item; a new one if there is none.

        A file that cannot be read is kept beside the new one under the suffix `.unreadable`.
        """
        path = self.path(feature, patient_id)
        try:
            return ItemState.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (ValidationError, UnicodeDecodeError):
            path.replace(path.with_suffix(".unreadable"))
        return ItemState(patient_id=patient_id, feature=feature)

    def begin(
        self, feature: str, patient_id: str, *, input_digest: str, fingerprint: str, pid: int
    ) -> None:
        """Record the start of an attempt; one that never ended becomes `interrupted`."""
        state = self.load(feature, patient_id)
        past = [
            attempt.model_copy(update={"outcome": "interrupted"})
            if attempt.outcome == "running"
            else attempt
            for attempt in state.attempts
        ]
        new = ItemAttempt(
            started=datetime.now(UTC), input_digest=input_digest, fingerprint=fingerprint, pid=pid
        )
        self._save(state.model_copy(update={"attempts": [*past, new]}))

    def finish(
        self,
        feature: str,
        patient_id: str,
        outcome: Outcome,
        *,
        tokens: int | None = None,
        problems: list[ItemProblem] | None = None,
    ) -> None:
        """Record how the attempt begun last ended."""
        state = self.load(feature, patient_id)
        if state.last is None:
            return
        attempt = state.last.model_copy(
            update={
                "outcome": outcome,
                "seconds": round((datetime.now(UTC) - state.last.started).total_seconds(), 3),
                "tokens": tokens,
                "problems": problems or [],
            }
        )
        self._save(state.model_copy(update={"attempts": [*state.attempts[:-1], attempt]}))

    def _save(self, state: ItemState) -> None:
        text = state.model_dump_json(indent=1)
        write_text(self.path(state.feature, state.patient_id), text + "\n")
