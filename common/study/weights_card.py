"""Declare where weights come from: the signed card of a file, and what a study accepts.

A file of weights is described by a card beside it, `FILE.card.json`. When a study is frozen, the
cards of all files that it names become part of it, so hospitals approve them with its digest and
nobody can lose or exchange one later.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.contract import Contract
from common.privacy.plan import Mode

Origin = Literal["public", "private", "not private", "unknown"]

_HEX64 = r"^[0-9a-f]{64}$"
Digest = Annotated[str, Field(pattern=_HEX64)]


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("needs printable words on one line: hospitals read them on a terminal")
    return text


Words = Annotated[str, Field(min_length=3, max_length=1000), AfterValidator(_printable)]
"""Text that a consent repeats; it cannot hide or overwrite what stands beside it."""


ShortText = Annotated[str, Field(max_length=100)]


class PublicSource(Contract):
    """What public weights were trained on, or are, and how they may be used."""

    name: Words = Field(description="public data or published model")
    licence: Words


class TrainingRecord(Contract):
    """One run that weights were trained in.

    Attributes:
        study_digest: The study.
        run_id: The run.
        model: Name of the model in the catalogue.
        rounds: Committed rounds.
        hospitals: On whose patients: hospital -> head of its ledger after its last answer.
        mode: Privacy mode of training.
        epsilon: Epsilon of all rounds together; None in mode none.
        delta: Delta that goes with it.
        fallback_epsilon: Epsilon if the server and all other hospitals collude.
        mu_squared: What all rounds cost a ledger together; 0 in mode none.
        noise: Mechanism of all rounds, as a ledger records it.
    """

    study_digest: Digest
    run_id: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")
    model: Words
    rounds: int = Field(gt=0)
    hospitals: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], Digest | None]
    mode: Mode
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    fallback_epsilon: float | None = Field(default=None, gt=0)
    mu_squared: float = Field(default=0.0, ge=0)
    noise: dict[str, float | int | ShortText] = Field(default_factory=dict, max_length=32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        figures = (self.epsilon, self.delta, self.fallback_epsilon, self.mu_squared or None)
        if any((figure is None) != (self.mode == "none") for figure in figures):
            raise ValueError("a private run has epsilon, delta and mu_squared, another has none")
        return self


class WeightsCard(Contract):
    """Where one file of weights comes from.

    Attributes:
        sha256: Digest of the file; of all its parts one after the other, where it has several.
        made: Date of the card, UTC, ISO 8601.
        public: Public sources it goes back to.
        trainings: Every run it goes back to, the oldest first.
        doubts: What is not known of its origin; empty if all is.
    """

    card: Literal[1] = 1
    sha256: Digest
    made: str = Field(pattern=r"^[0-9T:+.Z-]{10,40}$")
    public: list[PublicSource] = Field(default_factory=list, max_length=50)
    trainings: list[TrainingRecord] = Field(default_factory=list, max_length=50)
    doubts: list[Words] = Field(default_factory=list, max_length=50)

    @property
    def origin(self) -> Origin:
        """The weakest of all it goes back to."""
        if self.doubts or not (self.public or self.trainings):
            return "unknown"
        if any(training.mode == "none" for training in self.trainings):
            return "not private"
        return "private" if self.trainings else "public"


class SignedCard(Contract):
    """A card and the signature of who made it."""

    card: WeightsCard
    maker: Digest = Field(description="Ed25519 public key, hex")
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


class StudyWeights(Contract):
    """What a study knows, and accepts, of weights that it does not train from nothing."""

    accept_origin: Words | None = Field(
        default=None,
        description="why weights of unknown, random or non-private origin are used in a private "
        "study all the same; every consent repeats it",
    )
    makers: list[Digest] = Field(
        default_factory=list,
        description="public keys whose cards are believed, beside those of `sites`",
    )
    cards: list[SignedCard] = Field(
        default_factory=list, description="`tumorboard study freeze` fills it in"
    )

    def card_of(self, sha256: str) -> SignedCard | None:
        """Return the card of a file, or None."""
        return next((signed for signed in self.cards if signed.card.sha256 == sha256), None)

    @property
    def trainings(self) -> list[TrainingRecord]:
        """Every run that any of the weights goes back to, each once by its dearest record."""
        records = [record for signed in self.cards for record in signed.card.trainings]
        dearest = sorted(records, key=lambda record: record.mu_squared)
        return list({(r.run_id, r.study_digest): r for r in dearest}.values())
