"""Record consents: what the hospital agreed to, signed by its identity.

Only who holds the hospital's identity can widen a ceiling: a file written by anybody else, or
altered later, is refused.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from common.contract import Contract, canonical_json
from common.errors import ConfigError
from common.study.site_policy import Approval
from common.trust.signature import SIGNATURE, is_signed, sign

PURPOSE = "consent v1"


class SignedConsent(Contract):
    """One consent on disk."""

    approval: Approval
    given: str = Field(description="UTC, ISO 8601")
    signature: str = Field(pattern=SIGNATURE)

    @classmethod
    def make(cls, approval: Approval, identity: Ed25519PrivateKey) -> Self:
        """Return the approval signed by the hospital's identity."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            approval=approval,
            given=date,
            signature=sign(identity, PURPOSE, _body(approval, date)),
        )

    def text(self) -> str:
        """Return the consent as it is in its file."""
        return canonical_json(self.model_dump(mode="json"))


def read_consent(file: Path, public_key: str) -> Approval:
    """Return the approval of a consent's file after checking its signature.

    Args:
        file: The consent.
        public_key: Public half of the hospital's identity, hex.

    Raises:
        ConfigError: It cannot be read, or this hospital's identity did not sign it.
    """
    try:
        signed = SignedConsent.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError, RecursionError):
        raise _refused("a recorded consent cannot be read", file) from None
    body = _body(signed.approval, signed.given)
    if not is_signed(public_key, PURPOSE, body, signed.signature):
        raise _refused("a recorded consent is not signed by this hospital's identity", file)
    return signed.approval


def _body(approval: Approval, date: str) -> dict[str, object]:
    fields = approval.model_dump(mode="json")
    later = ("evaluation_epsilon_ceiling", "evaluation_fallback_ceiling", "exact_runs")
    for name in later:  # consents from before these limits were signed without them
        if fields[name] == Approval.model_fields[name].default:
            del fields[name]
    return {"approval": fields, "given": date}


def _refused(what: str, file: Path) -> ConfigError:
    return ConfigError(
        what,
        where=str(file),
        why="without it nobody knows what this hospital agreed to",
        cure="remove the file and run `tumorboard site approve` again",
    )
