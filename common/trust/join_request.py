"""A hospital's request to join: its two public keys, signed with both private keys.

The signatures prove that the sender holds the keys; who the sender is, people settle by
comparing the fingerprint over the telephone.
"""

import json
from pathlib import Path
from typing import Self, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import Field, ValidationError

from common.contract import Contract, canonical_json
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.storage.atomic_file import write_text
from common.study.study import Identifier
from common.trust.roster import NODE_KEY
from common.trust.signature import PUBLIC_KEY, SIGNATURE, is_signed, sign, signed_bytes, spoken

PURPOSE = "join request v1"


class JoinRequest(Contract):
    """What a hospital asks to be put on the roster."""

    site_id: Identifier
    name: str = Field(default="", max_length=200, description="name people read")
    identity: str = Field(pattern=PUBLIC_KEY, description="Ed25519 public key of the hospital")
    node_key: str = Field(pattern=NODE_KEY, description="P-384 public key of its SuperNode")
    made: str = Field(description="UTC, ISO 8601")

    @property
    def fingerprint(self) -> str:
        """Digest of the request as people compare it by telephone."""
        return spoken(self.digest())


class SignedJoinRequest(Contract):
    """A request with proof that its sender holds both private keys."""

    request: JoinRequest
    identity_signature: str = Field(pattern=SIGNATURE)
    node_signature: str = Field(pattern=r"^([0-9a-f]{2}){60,120}$", description="ECDSA, DER")

    @classmethod
    def make(
        cls, request: JoinRequest, identity: Ed25519PrivateKey, node: ec.EllipticCurvePrivateKey
    ) -> Self:
        """Return the request signed by both keys."""
        body = request.model_dump(mode="json")
        second = node.sign(signed_bytes(PURPOSE, body), ec.ECDSA(hashes.SHA384()))
        return cls(
            request=request,
            identity_signature=sign(identity, PURPOSE, body),
            node_signature=second.hex(),
        )

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_text(path, canonical_json(self.model_dump(mode="json")) + "\n")


def read_join_request(path: Path) -> JoinRequest:
    """Return the request of a file after checking both signatures.

    Raises:
        ConfigError: There is no such file.
        ProtocolError: It cannot be read, was altered, or its sender does not hold the keys
            (JOIN_REQUEST).
    """
    try:
        signed = SignedJoinRequest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        cure = "check the path; the hospital writes the file with `tumorboard site request`"
        raise ConfigError("the request does not exist", where=str(path), cure=cure) from None
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise refused("the request cannot be read", str(path), type(error).__name__) from None
    request = signed.request
    body = request.model_dump(mode="json")
    if not is_signed(request.identity, PURPOSE, body, signed.identity_signature):
        raise refused("the request is not signed by its own identity", str(path), _ALTERED)
    if not _node_signed(request.node_key, body, signed.node_signature):
        raise refused("the request is not signed by its own node key", str(path), _ALTERED)
    return request


_ALTERED = "it was altered on its way, or the sender does not hold the private key"


def refused(what: str, where: str, why: str) -> ProtocolError:
    """Return the error of a request that is not admitted."""
    return ProtocolError(
        what,
        where=where,
        why=why,
        cure="ask the hospital for a new one: `tumorboard site request`",
        code=ErrorCode.JOIN_REQUEST,
    )


def _node_signed(node_key: str, body: object, signature: str) -> bool:
    try:
        key = cast(ec.EllipticCurvePublicKey, load_ssh_public_key(node_key.encode("ascii")))
        key.verify(bytes.fromhex(signature), signed_bytes(PURPOSE, body), ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True
