"""Compute masks: AES-256 counter streams over full 256-bit keys, added modulo 2^64 or 2^32."""

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common.secure_sum.keys import derive

Words = npt.NDArray[np.unsignedinteger[Any]]

_BLOCK_BYTES = 2**20
_ZEROS = bytes(_BLOCK_BYTES)


def mask_seed(secret: bytes, run_digest: str, purpose: str, about: str) -> bytes:
    """Return the 32-byte seed of one sum; it says nothing of other sums' seeds."""
    return derive(secret, run_digest, f"{purpose}|{about}")


def to_words(vector: npt.NDArray[np.int64], modulus_bits: int) -> Words:
    """Return signed integers modulo 2^modulus_bits, a new array (d,) uint64 or uint32."""
    return np.ascontiguousarray(vector, dtype=np.int64).astype(word_type(modulus_bits))


def to_signed(words: Words) -> npt.NDArray[np.int64]:
    """Return words as the signed integers nearest to zero, (d,) int64."""
    signed = np.int64 if words.dtype == np.uint64 else np.int32
    return words.view(signed).astype(np.int64)


def word_type(modulus_bits: int) -> np.dtype[Any]:
    """Return the little-endian word of a modulus."""
    return np.dtype("<u8" if modulus_bits == 64 else "<u4")


def apply_mask(words: Words, seed: bytes, *, add: bool) -> None:
    """Add or subtract the stream of a seed in place.

    Args:
        words: (d,) uint64 or uint32; changed.
        seed: 32 bytes, used for one vector only.
        add: Whether to add; subtract otherwise.
    """
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    step = _BLOCK_BYTES // words.itemsize
    for start in range(0, len(words), step):
        part = words[start : start + step]
        mask = np.frombuffer(stream.update(_ZEROS[: part.nbytes]), dtype=words.dtype)
        (np.add if add else np.subtract)(part, mask, out=part)
