"""Log every call at the hospital: who asked for what, and what was sent out.

A line is on disk before the answer leaves; if it cannot be written, the answer does not leave.
Lines hold digests of request and reply, never their content.
"""

import re
import time
from dataclasses import dataclass, field

from common.contract import sha256_hex
from common.process.event_log import event
from common.protocol.protocol import METHODS
from common.trust.audit_log import AuditLog
from common.trust.audit_record import Fact
from common.wire import WireMessage

NOT_NOTED = "status"
"""Asked every second and free of any patient: only its refusals are noted."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_DIGESTS = ("study_digest", "model_digest", "ledger_head")


@dataclass
class Call:
    """One call on its way through the agent.

    Attributes:
        method: As asked for.
        header: Header of the request.
        payload: Payload of the request.
        request: The request, once it was read.
        reply: What is to leave; None if the call is refused.
        encoded: Header and payload of the reply.
        code: Stable code of a refusal; empty if there is none.
        started: Monotonic time, s.
    """

    method: str
    header: str
    payload: bytes
    request: WireMessage | None = None
    reply: WireMessage | None = None
    encoded: tuple[str, bytes] | None = None
    code: str = ""
    started: float = field(default_factory=time.monotonic)


class CallJournal:
    """Writes one audit line and one event a call."""

    def __init__(self, site_id: str, log: AuditLog) -> None:
        self._site_id, self._log = site_id, log

    def note(self, call: Call) -> None:
        """Write a call down; when this returns the line is on disk.

        Raises:
            LedgerError: The audit log was damaged (AUDIT_LOG).
            OSError: The disk is full.
        """
        method = call.method if call.method in METHODS else "unknown"
        code = call.code or str(getattr(call.reply, "refusal_code", None) or "")
        if method == NOT_NOTED and not code:
            return
        run = _name(getattr(call.request, "run_id", None))
        round_number = getattr(call.request, "round", None)
        facts: dict[str, Fact] = {"method": method, "request_digest": _digest(call)}
        for name in _DIGESTS:
            value = getattr(call.reply, name, None) or getattr(call.request, name, None)
            if value is not None:
                facts[name] = _name(value)
        if call.encoded is not None:
            header, payload = call.encoded
            facts["reply_digest"] = sha256_hex(header.encode() + payload)
            facts["reply_bytes"] = len(header) + len(payload)
        self._log.append("call", run=run, round=round_number, site="", code=code, **facts)
        seconds = round(time.monotonic() - call.started, 3)
        event(
            "call",
            site=self._site_id,
            run=run,
            round=round_number,
            code=code,
            method=method,
            seconds=seconds,
            bytes=facts.get("reply_bytes"),
        )


def _digest(call: Call) -> str:
    return sha256_hex(call.header.encode(errors="replace") + call.payload)


def _name(value: object) -> str:
    """Return a name as it stands; anything that is none is left out."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""
