"""Encode messages between site and server: a JSON header and safetensors arrays, never pickle."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ErrorCode, ProtocolError

Arrays = dict[str, npt.NDArray[Any]]

MAX_PAYLOAD_BYTES = 512 * 1024 * 1024
MAX_HEADER_BYTES = 16 * 1024 * 1024


class WireMessage(Contract):
    """A declared message. `arrays` travel in the payload, all other fields in the header."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    arrays: Arrays = Field(default_factory=dict, exclude=True, repr=False)

    def encode(self) -> tuple[str, bytes]:
        """Return (header JSON, payload bytes)."""
        contiguous = {name: np.ascontiguousarray(a) for name, a in sorted(self.arrays.items())}
        return canonical_json(self.model_dump(mode="json")), save_tensors(contiguous)

    @classmethod
    def decode(cls, header: str, payload: bytes) -> Self:
        """Return the message.

        Raises:
            ProtocolError: Header or payload is oversized, truncated, or breaks the declaration.
        """
        if len(payload) > MAX_PAYLOAD_BYTES or len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(
                "the message is larger than allowed",
                where=cls.__name__,
                why=f"{len(payload)} payload bytes, at most {MAX_PAYLOAD_BYTES}",
                code=ErrorCode.PAYLOAD,
            )
        try:
            arrays = load_tensors(payload)
            message = cls.model_validate_json(header)
        except (SafetensorError, ValidationError, ValueError, KeyError) as error:
            raise ProtocolError(
                "the message cannot be read",
                where=cls.__name__,
                why=type(error).__name__,
                cure="both sides must run the same version of tumorboard",
                code=ErrorCode.PAYLOAD,
            ) from None
        return message.model_copy(update={"arrays": arrays})


def arrays_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of named arrays: names, dtypes, shapes and bytes, in name order."""
    parts = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts.append(f"{name}|{array.dtype.str}|{array.shape}|{sha256_hex(array.tobytes())}")
    return sha256_hex("\n".join(parts))


def joint_norm(arrays: Arrays) -> float:
    """Return the L2 norm over all arrays together, in float64, whatever their order."""
    squares = (float(np.sum(np.square(a, dtype=np.float64))) for a in arrays.values())
    return math.sqrt(math.fsum(squares))


def prefixed(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Return the arrays with `prefix` before each name."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def part_of(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays whose name starts with `prefix`, under the rest of their name."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
