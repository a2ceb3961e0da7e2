"""State where a hospital's privacy ledger stands, signed, for other hospitals to remember.

A ledger that was restored from a backup, deleted or cloned would spend again what was spent
before, and its own hospital cannot see that. So every masked answer carries such a mark, every
hospital remembers the newest one of each other, and refuses to open a sum with a mark that does
not follow the one it remembers. When keys are agreed on, each hospital is shown what the others
remember of it. Nothing of this needs the server's honesty: it cannot sign marks, and without them
no sum opens.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from common.contract import Contract, canonical_json

_HEX64 = r"^[0-9a-f]{64}$"


class LedgerMark(Contract):
    """Where one hospital's ledger stood when it answered for one sum."""

    site_id: str = Field(min_length=1, max_length=64)
    run_id: str = Field(min_length=1, max_length=128)
    number: int = Field(ge=1, description="number of the sum in this run")
    position: int = Field(ge=1, description="lines of the ledger")
    head: str = Field(pattern=_HEX64, description="hash of its newest line")
    previous_position: int = Field(default=0, ge=0, description="of the mark before; 0: none")
    previous_head: str | None = Field(default=None, pattern=_HEX64)
    signature: str = Field(default="0" * 128, pattern=r"^[0-9a-f]{128}$")

    def signed(self, identity: Ed25519PrivateKey) -> "LedgerMark":
        """Return the mark with the signature of the hospital's identity."""
        return self.model_copy(update={"signature": identity.sign(self._signed_bytes()).hex()})

    def is_signed_by(self, public_key: str) -> bool:
        """Return whether the identity with this public key (hex) signed the mark."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
            key.verify(bytes.fromhex(self.signature), self._signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True

    def follows(self, earlier: "LedgerMark") -> bool:
        """Return whether a ledger that stood at `earlier` can have come to this mark.

        Marks between the two may have been missed; the hospital's chain of marks cannot go back
        behind one that somebody remembers.
        """
        if self == earlier:
            return True
        if self.previous_position == earlier.position and self.previous_head != earlier.head:
            return False
        return earlier.position <= self.previous_position < self.position

    def _signed_bytes(self) -> bytes:
        body = canonical_json(self.model_dump(mode="json", exclude={"signature"}))
        return f"tumorboard ledger mark v1\n{body}".encode()
