"""One line of an audit log: an action, chained to the line before it and signed."""

import json
from datetime import UTC, datetime
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ErrorCode, LedgerError
from common.trust.signature import PUBLIC_KEY, SIGNATURE, is_signed, public_half, sign

PURPOSE = "audit v1"
NO_HASH = "0" * 64
_HASH = r"^[0-9a-f]{64}$"

Fact = str | int | float | bool | None


class AuditRecord(Contract):
    """What one side did or refused. Holds no patient identifier and no text of an exception.

    Attributes:
        sequence: Number of the line, from 0.
        time: UTC, ISO 8601, to the millisecond.
        actor: Whose log it is: a site, or `coordinator`.
        event: What happened, a short word: `call`, `admitted`, `round_committed`.
        run: Run it belongs to; empty if none.
        round: Round it belongs to.
        site: Site it is about; empty if none or the actor itself.
        code: Stable error code of a refusal; empty if it was done.
        facts: Digests, counts and names that belong to the event.
        key: Public key that signs the line, hex.
        previous: SHA-256 of the line before; zeros in the first.
        sha256: SHA-256 of all of the above.
        signature: Signature over `sha256`.
    """

    sequence: int = Field(ge=0)
    time: str
    actor: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    event: str = Field(pattern=r"^[a-z][a-z_]{0,63}$")
    run: str = Field(default="", max_length=128)
    round: int | None = None
    site: str = Field(default="", max_length=64)
    code: str = Field(default="", max_length=8)
    facts: dict[str, Fact] = Field(default_factory=dict)
    key: str = Field(pattern=PUBLIC_KEY)
    previous: str = Field(pattern=_HASH)
    sha256: str = Field(pattern=_HASH)
    signature: str = Field(pattern=SIGNATURE)

    @classmethod
    def following(
        cls, last: "AuditRecord | None", actor: str, key: Ed25519PrivateKey, **fields: object
    ) -> Self:
        """Return the signed record after `last` (None: the first of a log)."""
        body: dict[str, object] = {
            "sequence": 0 if last is None else last.sequence + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "actor": actor,
            "run": "",
            "round": None,
            "site": "",
            "code": "",
            "facts": {},
            "key": public_half(key),
            "previous": NO_HASH if last is None else last.sha256,
            **fields,
        }
        digest = sha256_hex(canonical_json(body))
        return cls.model_validate(
            body | {"sha256": digest, "signature": sign(key, PURPOSE, digest)}
        )

    def line(self) -> bytes:
        """Return the record as one line."""
        return canonical_json(self.model_dump(mode="json")).encode() + b"\n"

    @classmethod
    def parse(
        cls, line: bytes, last: "AuditRecord | None", public_key: str | None, *, where: str
    ) -> Self:
        """Return the record of a line after checking hash, chain and signature.

        Args:
            line: The line with its end.
            last: The record before it.
            public_key: Key it must be signed by, hex; None takes the one it names.
            where: File and line, for the message.

        Raises:
            LedgerError: One of them is wrong (AUDIT_LOG).
        """
        try:
            record = cls.model_validate(json.loads(line))
        except (ValueError, ValidationError, RecursionError):
            raise damaged("a line of the audit log cannot be read", where) from None
        body = record.model_dump(mode="json", exclude={"sha256", "signature"})
        if record.line() != line or sha256_hex(canonical_json(body)) != record.sha256:
            raise damaged("a line of the audit log was changed", where)
        place = (0, NO_HASH) if last is None else (last.sequence + 1, last.sha256)
        if (record.sequence, record.previous) != place:
            raise damaged("lines of the audit log were taken out or moved", where)
        if last is not None and record.actor != last.actor:
            raise damaged("a line belongs to another audit log", where)
        owner = public_key or (last.key if last is not None else record.key)
        if record.key != owner or not is_signed(owner, PURPOSE, record.sha256, record.signature):
            raise damaged("a line of the audit log is not signed by its owner", where)
        return record


def damaged(what: str, where: str) -> LedgerError:
    """Return the error of an audit log whose chain does not close."""
    return LedgerError(
        what,
        where=where,
        why="what it says can no longer be relied on",
        cure="keep the file, and compare it with a copy and with heads noted elsewhere",
        code=ErrorCode.AUDIT_LOG,
    )
