"""Store what a hospital agreed to, so that a restarted agent needs no new handshake."""

from pathlib import Path

from pydantic import ValidationError

from common.contract import Contract, canonical_json
from common.errors import ErrorCode, LedgerError, ProtocolError
from common.storage.atomic_file import write_text
from common.study.site_policy import SitePolicy
from common.study.study import Identifier


class AcceptedRun(Contract):
    """What a hospital keeps of an accepted handshake."""

    run_id: Identifier
    study_digest: str
    study_json: str


def remember_run(policy: SitePolicy, run: AcceptedRun) -> None:
    """Store an accepted run durably.

    Raises:
        ProtocolError: The run id was used for another study.
    """
    earlier, path = accepted_run(policy, run.run_id), _path(policy, run.run_id)
    if earlier is not None and earlier.study_digest != run.study_digest:
        raise ProtocolError(
            "the run id belongs to another study",
            where=str(path),
            why="replies are stored by run id and must never be mixed",
            code=ErrorCode.STUDY_DIGEST,
        )
    write_text(path, canonical_json(run.model_dump(mode="json")))


def accepted_run(policy: SitePolicy, run_id: str) -> AcceptedRun | None:
    """Return a run this hospital agreed to, or None.

    Raises:
        LedgerError: The record of the run cannot be read.
    """
    path = _path(policy, run_id)
    if not path.is_file():
        return None
    try:
        return AcceptedRun.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        raise LedgerError(
            "the record of an accepted run cannot be read",
            where=str(path),
            cure="restore it from backup, or remove it and let the server repeat the handshake",
        ) from None


def _path(policy: SitePolicy, run_id: str) -> Path:
    return policy.state / "runs" / f"{run_id}.json"
