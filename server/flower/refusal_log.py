"""Log, signed, the callers that the SuperLink refused; a flood cannot fill the disk.

Lines are written by a thread of its own: a refusal costs the SuperLink no wait for the disk.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from common.contract import sha256_hex
from common.errors import TumorboardError
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log

REPEAT_S = 10.0
"""The same refusal is written once in this many seconds; the next line counts the repeats."""

MINUTE_S = 60.0
MOST_A_MINUTE = 120
MAX_WAITING = 1000
_log = logging.getLogger("tumorboard.superlink")


@dataclass(frozen=True)
class Caller:
    """Something a caller did that is to be written down.

    Attributes:
        event: `caller_refused` or `control_called`.
        code: Stable code of a refusal; empty if it was done.
        path: Path it called; empty where it did not come so far.
        address: Its IP address; empty if unknown.
        node_key: Public key it showed (PEM); empty if none.
        said: Flower's own code, HTTP status or TLS alert.
    """

    event: str
    code: str = ""
    path: str = ""
    address: str = ""
    node_key: bytes = b""
    said: str = ""


class RefusalLog:
    """Appends callers to the coordinator's audit log."""

    def __init__(self, folder: ConsortiumFolder) -> None:
        self._folder = folder
        self._audit = audit_log(folder)
        self._waiting: queue.Queue[Caller] = queue.Queue(MAX_WAITING)
        self._written: dict[Caller, float] = {}
        self._repeats: dict[Caller, int] = {}
        self._minute, self._lines = 0.0, 0
        threading.Thread(target=self._run, daemon=True).start()

    def note(self, caller: Caller) -> None:
        """Have a caller written down; returns at once."""
        try:
            self._waiting.put_nowait(caller)
        except queue.Full:
            _log.error("refusals come faster than they can be written")

    def _run(self) -> None:
        while True:
            caller = self._waiting.get()
            try:
                if not caller.code or self._is_due(caller, time.monotonic()):
                    self._write(caller)
            except (TumorboardError, OSError) as error:
                _log.error("the audit log cannot be written: %s", error)

    def _is_due(self, caller: Caller, now: float) -> bool:
        if now - self._minute > MINUTE_S:
            self._minute, self._lines = now, 0
            old = [c for c, at in self._written.items() if now - at > MINUTE_S]
            for key in old:
                del self._written[key]
                self._repeats.pop(key, None)
        recent = now - self._written.get(caller, -REPEAT_S) < REPEAT_S
        if recent or self._lines >= MOST_A_MINUTE:
            if caller in self._written:
                self._repeats[caller] = self._repeats.get(caller, 0) + 1
            return False
        self._written[caller] = now
        self._lines += 1
        return True

    def _write(self, caller: Caller) -> None:
        facts: dict[str, Any] = {"path": caller.path, "address": caller.address}
        if caller.said:
            facts["said"] = caller.said
        if caller.node_key:
            facts["node_key_digest"] = sha256_hex(caller.node_key)[:16]
        repeats = self._repeats.pop(caller, 0)
        if repeats:
            facts["repeats"] = repeats
        site = self._site(caller.node_key)
        self._audit.append(caller.event, site=site, code=caller.code, **facts)
        _log.warning("%s %s %s %s %s", caller.event, caller.code, caller.path, site, caller.said)

    def _site(self, node_key: bytes) -> str:
        """Return the hospital a key was ever admitted for; empty if none."""
        try:
            key = load_pem_public_key(node_key)
            if not isinstance(key, EllipticCurvePublicKey):
                return ""
            text = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
            members = self._folder.roster().members
        except (ValueError, UnsupportedAlgorithm, TumorboardError):
            return ""
        return next((m.site_id for m in members if m.node_key == text), "")
