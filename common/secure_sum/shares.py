"""Shamir shares of 256-bit secrets over the prime field 2^256 + 297 (Shamir, 1979)."""

import secrets
from collections.abc import Sequence

PRIME = 2**256 + 297
"""The smallest prime above 2^256."""

SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, count: int, threshold: int) -> list[bytes]:
    """Return `count` shares, for x = 1..count; any `threshold` of them give the secret back.

    Args:
        secret: 32 bytes.
        count: Number of shares.
        threshold: Shares needed; fewer say nothing.
    """
    terms = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    terms.append(int.from_bytes(secret, "little"))
    shares = []
    for x in range(1, count + 1):
        value = 0
        for term in terms:
            value = (value * x + term) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "little"))
    return shares


def weights_at_zero(numbers: Sequence[int]) -> list[int]:
    """Return Lagrange's weights for distinct x `numbers`, evaluated at 0."""
    weights = []
    for x in numbers:
        above, below = 1, 1
        for other in numbers:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def combine(shares: Sequence[bytes], weights: Sequence[int]) -> bytes | None:
    """Return the secret (32 bytes) of shares with their weights, or None if they disagree.

    Disagreement shows only by chance; callers check the secret against its commitment.
    """
    parts = (int.from_bytes(s, "little") * w for s, w in zip(shares, weights, strict=True))
    value = sum(parts) % PRIME
    return value.to_bytes(SECRET_BYTES, "little") if value < 2**256 else None
