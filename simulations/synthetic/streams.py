"""Random streams named by their purpose, so that order and worker count change nothing."""

import hashlib

import numpy as np


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one purpose.

    Args:
        seed: Seed of the consortium.
        names: What the numbers are for, e.g. site, patient, "slide". Other names give an
            independent stream.

    Example:
        >>> bool(stream(7, "alder").random() == stream(7, "alder").random())
        True
    """
    text = "\x1f".join([str(seed), *names])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.PCG64(key))
