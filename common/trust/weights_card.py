"""Sign the card of a weights file, store it beside the file, and read it back."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from common.contract import canonical_json
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.study import Study
from common.study.weights_card import SignedCard, TrainingRecord, WeightsCard
from common.trust.signature import is_signed, public_half, sign

PURPOSE = "weights card v1"


def sign_card(key: Ed25519PrivateKey, sha256: str, **facts: object) -> SignedCard:
    """Return the card of a file, dated now and signed.

    Args:
        key: Of who makes the card.
        sha256: Digest of the file.
        facts: `public`, `trainings` and `doubts` of the card.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    card = WeightsCard.model_validate({"sha256": sha256, "made": date, **facts})
    signature = sign(key, PURPOSE, card.model_dump(mode="json"))
    return SignedCard(card=card, maker=public_half(key), signature=signature)


def is_genuine(signed: SignedCard) -> bool:
    """Return whether the maker named on a card signed exactly this card."""
    body = signed.card.model_dump(mode="json")
    return is_signed(signed.maker, PURPOSE, body, signed.signature)


def card_path(file: Path) -> Path:
    """Return where the card of a weights file lies."""
    return file.with_name(f"{file.name}.card.json")


def write_card(file: Path, signed: SignedCard) -> Path:
    """Write the card of a weights file beside it, durably; return its path."""
    path = card_path(file)
    write_text(path, canonical_json(signed.model_dump(mode="json")) + "\n")
    return path


def read_card(file: Path) -> SignedCard | None:
    """Return the card beside a weights file; None if there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    path = card_path(file)
    try:
        return SignedCard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise ConfigError(
            "the card of a weights file cannot be read",
            where=str(path),
            why=type(error).__name__,
            cure="copy it again from who made the weights",
        ) from None


def parts_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files one after the other, in hex.

    Raises:
        ConfigError: One of them cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ConfigError(
                "the weights file cannot be read",
                where=str(file),
                why=type(error).__name__,
                cure="check the path in the study, and that you may read the file",
            ) from None
    return digest.hexdigest()


def origin_in_words(card: WeightsCard) -> str:
    """Return where weights come from, as one line."""
    parts = [f"public: {source.name} ({source.licence})" for source in card.public]
    parts += [_in_words(record) for record in card.trainings]
    parts += [f"in doubt: {doubt}" for doubt in card.doubts]
    return "; ".join(parts) or "of unknown origin"


def weights_in_words(study: Study) -> list[str]:
    """Return what a study says about the origin of weights, line by line; empty if it uses none."""
    names = {entry.public_key: entry.site_id for entry in study.sites}
    lines = [
        f"weights {signed.card.sha256:.12} are {origin_in_words(signed.card)}; says "
        f"{names.get(signed.maker) or f'the key {signed.maker:.16}'}, {signed.card.made:.10}"
        for signed in study.weights.cards
    ]
    if study.weights.accept_origin is not None:
        lines.append(f"weights of doubtful origin are used because: {study.weights.accept_origin}")
    return lines


def _in_words(record: TrainingRecord) -> str:
    whom = f"patients of {', '.join(sorted(record.hospitals)) or 'nobody'}"
    run = f"trained on {whom} in run {record.run_id} ({record.rounds} rounds of {record.model}"
    if record.mode == "none":
        return f"{run}, without privacy)"
    return (
        f"{run}, mode {record.mode}, epsilon {record.epsilon:.3g}, delta {record.delta:g}, epsilon "
        f"{record.fallback_epsilon:.3g} if the server and all others collude)"
    )
