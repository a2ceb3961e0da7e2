"""Split patients permanently into training and held-out, by a keyed hash of the identifier.

Membership never changes: not with the order of the manifest, not with new patients, not
between studies. Held-out patients therefore pay only for evaluation and training patients only
for training (parallel composition). Another fraction would move patients from one side to the
other, who would then pay on both, so a hospital keeps to the fraction of its first study. The key
is the hospital's secret, so nobody outside can see from an identifier on which side a patient is.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, ErrorCode, PrivacyError
from common.storage.atomic_file import write_text
from common.trust.secret_file import write_new_secret

KEY_BYTES = 32


def is_held_out(patient_id: str, key: bytes, fraction: float) -> bool:
    """Return whether a patient is held out.

    The first 64 bits of HMAC-SHA256(key, patient_id), read as a fraction of 2^64, are compared
    with `fraction`; a larger fraction only adds held-out patients.

    Args:
        patient_id: Identifier, UTF-8.
        key: Secret of the hospital.
        fraction: Expected share of held-out patients, 0 to 1.
    """
    digest = hmac.new(key, patient_id.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") < round(fraction * 2.0**64)


def load_or_create_split_key(path: Path) -> bytes:
    """Return the hospital's split key, made on first use, readable by its owner alone.

    Two processes that start at once get the same key.

    Raises:
        ConfigError: The file holds no key, or cannot be written.
    """
    if not path.exists():
        _create(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from None
    if len(key) != KEY_BYTES:
        raise _unusable(path, f"{len(key)} bytes, expected {KEY_BYTES}")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return key


def fraction_held(key_file: Path) -> float | None:
    """Return the held-out fraction this hospital keeps to, or None before its first study.

    Raises:
        ConfigError: The file holds no number.
    """
    path = _fraction_file(key_file)
    try:
        return float(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from None


def hold_fraction(key_file: Path, fraction: float) -> None:
    """Keep to a held-out fraction from now on; it is written beside the split key.

    Raises:
        PrivacyError: Another fraction is kept to already (POLICY).
        ConfigError: The file holds no number.
    """
    own_fraction = fraction_held(key_file)
    if own_fraction is None:
        write_text(_fraction_file(key_file), f"{fraction!r}\n")
    elif own_fraction != fraction:
        raise PrivacyError(
            f"the study holds out {fraction:.6g} of the patients, this hospital {own_fraction:.6g}",
            where="study.training.test_fraction",
            why="patients who change sides pay for training and for evaluation, and no budget "
            "would count both",
            cure=f"ask the coordinator for test_fraction: {own_fraction:.6g}",
            code=ErrorCode.POLICY,
        )


def sides(patient_ids: Sequence[str], key: bytes, fraction: float) -> tuple[list[int], list[int]]:
    """Return the indices of (training patients, held-out patients), each in the given order."""
    indices: tuple[list[int], list[int]] = ([], [])
    for index, patient in enumerate(patient_ids):
        indices[is_held_out(patient, key, fraction)].append(index)
    return indices


def _fraction_file(key_file: Path) -> Path:
    return key_file.with_suffix(".fraction")


def _create(path: Path) -> None:
    try:
        write_new_secret(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
    except FileExistsError:
        return  # another process was first; its key counts
    except OSError as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "the split key cannot be used",
        where=str(path),
        why=why,
        cure="restore it from backup; a new key would move patients between training and test",
    )
