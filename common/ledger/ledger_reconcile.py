"""Accept a ledger that lost lines, and charge for the loss: an administrator's act."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.ledger.ledger_entry import AdministratorWord, LedgerRecord, SpendEntry
from common.ledger.ledger_file import LedgerFile
from common.storage import durable


def reconcile(
    path: Path,
    site_id: str,
    *,
    lost_head: str | None,
    charges: Sequence[SpendEntry],
    by: str,
    reason: str,
) -> LedgerRecord:
    """Record that a ledger lost lines, charge for them, and accept it as it now is.

    Args:
        path: The ledger, as restored.
        site_id: The hospital.
        lost_head: Head that the server (or the head file) remembers.
        charges: Epsilon to be assumed spent in the lost lines.
        by: Who decides.
        reason: What happened.

    Raises:
        LedgerError: The restored chain itself is broken.
    """
    file = LedgerFile(path, site_id)
    word = AdministratorWord(
        action="reconcile", by=by, reason=reason, lost_head=lost_head, charges=list(charges)
    )
    with durable.exclusive_lock(file.lock_path):
        file.refresh(trust_head=False)
        return file.append(kind="administrator", administrator=word)
