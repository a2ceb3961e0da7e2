"""Replace a patient's folder of explanations as a whole, or leave the former one."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORD = "prediction.json"
"""Written last: a folder without it holds no whole explanation. Its `files` names the others."""


@contextmanager
def patient_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace the last explanation in `target` on success.

    After an error `target` is as it was. Only files that the last explanation wrote are ever
    removed; whatever else lies in `target` stays.

    Args:
        target: The patient's folder; made if need be.
    """
    waiting = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    waiting.mkdir(parents=True)
    try:
        yield waiting
        target.mkdir(exist_ok=True)
        before = _written_before(target)
        (target / RECORD).unlink(missing_ok=True)
        fresh = sorted(waiting.iterdir(), key=lambda file: file.name == RECORD)
        for old in before - {file.name for file in fresh}:
            (target / old).unlink(missing_ok=True)
        for file in fresh:
            file.replace(target / file.name)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _written_before(target: Path) -> set[str]:
    try:
        files = json.loads((target / RECORD).read_text(encoding="utf-8"))["files"]
        return {str(name) for name in files if Path(str(name)).name == str(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
