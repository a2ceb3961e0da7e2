"""Read the current state of a run folder without disturbing the run.

Nothing is written. A file that is missing, being replaced or damaged makes a problem on
the page, never an error of the page.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from common.contract import canonical_json, sha256_hex
from common.page.problem import Problem, attempt
from common.storage.file_lock import is_held
from common.study.study import Study
from server.session.checkpoint import RoundRecord
from server.session.run_state import STATE_FILE, RunState, load_run_state
from server.session.session import LOCK_FILE

CURE = "Look at the permissions of the run folder, and whether its disk is there."


@dataclass(frozen=True)
class RunFiles:
    """A run folder at one moment.

    Attributes:
        folder: The folder.
        state: Its state; None if there is none, or none that can be read.
        study: The study, likewise.
        history: Committed rounds, oldest first.
        at_work: Whether a process holds the run; None where the system does not report it.
        changed: When a round or the state was last written.
        problems: Files that cannot be read.
    """

    folder: Path
    state: RunState | None
    study: Study | None
    history: tuple[RoundRecord, ...]
    at_work: bool | None
    changed: datetime | None
    problems: tuple[Problem, ...]


def read_run_files(folder: Path) -> RunFiles:
    """Return what is in a run folder; never fails."""
    problems: list[Problem] = []
    state = attempt(lambda: load_run_state(folder), problems, weight="warns", cure=CURE)
    study = attempt(lambda: _study(folder / "study.json"), problems, weight="warns", cure=CURE)
    history = _history(folder / "checkpoints", problems)
    return RunFiles(
        folder=folder,
        state=state,
        study=study,
        history=history,
        at_work=_at_work(folder),
        changed=_changed([folder / STATE_FILE, *_rounds(folder / "checkpoints")[:1]]),
        problems=tuple(problems),
    )


def _at_work(folder: Path) -> bool | None:
    try:
        return is_held(folder / LOCK_FILE)
    except OSError:
        return None


def _study(path: Path) -> Study | None:
    return Study.from_yaml(path) if path.is_file() else None


def _history(folder: Path, problems: list[Problem]) -> tuple[RoundRecord, ...]:
    """Return the history that the newest readable round holds; its arrays are not read."""
    listed = _rounds(folder)
    for path in listed:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            digest = record.pop("sha256")
            if digest != sha256_hex(canonical_json(record)):
                raise ValueError("digest")
            return tuple(RoundRecord.model_validate(entry) for entry in record["history"])
        except FileNotFoundError:  # a newer round took its place
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            what = "A committed round cannot be read; the page shows the previous one."
            cure = (
                "Stop the run and move this round's two files away: it continues a round earlier."
            )
            problems.append(Problem("warns", what, cure, where=path.name))
    if listed and _rounds(folder) != listed:  # all of them were replaced meanwhile
        return _history(folder, problems)
    return ()


def _rounds(folder: Path) -> list[Path]:
    """Return the records of committed rounds, newest first."""
    try:
        folders = [path for path in folder.iterdir() if path.name.startswith("round_")]
    except OSError:
        return []
    return sorted((path for path in folders if path.suffix == ".json"), reverse=True)


def _changed(paths: list[Path]) -> datetime | None:
    times = []
    for path in paths:
        try:
            times.append(os.stat(path).st_mtime)  # noqa: PTH116
        except OSError:
            continue
    return datetime.fromtimestamp(max(times), UTC) if times else None
