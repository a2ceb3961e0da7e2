"""Contract of a ledger line: a spend, its commit, a recovery or an administrator's entry."""

import json
import math
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import LedgerError
from common.privacy.accounting import pure_epsilon_of_mu
from common.privacy.skellam_closeness import closeness

Partition = Literal["train", "held_out", "validation", "all"]
"""Disjoint sets of patients, by a permanent keyed hash; "all" spends from every one."""

PARTITIONS: tuple[Partition, ...] = ("train", "held_out", "validation")
Mechanism = Literal["gaussian", "skellam", "geometric", "none"]
Kind = Literal["genesis", "reserve", "commit", "recovered", "administrator"]

NO_HASH = "0" * 64
_HEX64 = r"^[0-9a-f]{64}$"


class SpendEntry(Contract):
    """One release of patient data, before it happens.

    A release is known by (run_id, round, purpose, partition); the same release may be requested
    again, another one under the same name may not.
    """

    study_digest: str = Field(pattern=_HEX64)
    run_id: str = Field(min_length=1, max_length=128)
    round: int = Field(ge=0)
    model_digest: str = Field(pattern=_HEX64, description="digest of model (or whole request)")
    partition: Partition
    purpose: str = Field(min_length=1, max_length=64, description="train, evaluate, count, audit")
    mechanism: Mechanism
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="sigma, clip, q, T, scale, t, n_min, adjacency"
    )
    mu_squared: float = Field(ge=0, description="GDP parameter squared; 0 for mechanism none")
    pure_epsilon: float | None = Field(
        default=None, ge=0, description="epsilon at delta 0, if the mechanism has one"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mechanism == "none") != (self.mu_squared == 0):
            raise ValueError("mu_squared must be 0 for mechanism none and positive for all others")
        if self.pure_epsilon is not None and self.mechanism != "geometric":
            raise ValueError("only the geometric mechanism has a pure epsilon")
        return self

    @property
    def key(self) -> tuple[str, int, str, str]:
        """Name of the release: (run, round, purpose, partition)."""
        return (self.run_id, self.round, self.purpose, self.partition)

    @property
    def shares(self) -> int | None:
        """Number of honest shares that make up the noise; None if the line does not state it."""
        shares = self.parameters.get("shares")
        return shares if isinstance(shares, int) else None

    @property
    def table_epsilons(self) -> tuple[float, ...] | None:
        """Pure epsilon of every table of an evaluation; None for other releases."""
        tables = self.parameters.get("epsilon")
        if self.mechanism != "geometric" or not isinstance(tables, dict):
            return None
        numbers = [value for value in tables.values() if isinstance(value, int | float)]
        return tuple(map(float, numbers)) if len(numbers) == len(tables) else None

    @cached_property
    def closeness(self) -> float:
        """Kappa of all Skellam releases of the entry; 0 for other noise and for plans."""
        numbers = [
            self.parameters.get(name)
            for name in ("share_variance_steps", "shares", "dimension", "releases_per_round")
        ]
        variance, shares, dimension, releases = [
            float(number) if isinstance(number, int | float) else math.nan for number in numbers
        ]
        if self.mechanism != "skellam" or not variance * shares * dimension > 0:
            return 0.0
        count = 1 if math.isnan(releases) else round(releases)
        return closeness(variance * shares, round(dimension) * count)

    @property
    def pure(self) -> float | None:
        """Pure epsilon of the release; None if it has none."""
        if self.mechanism != "geometric":
            return None
        if self.pure_epsilon is not None:
            return self.pure_epsilon
        return pure_epsilon_of_mu(float(self.mu_squared) ** 0.5)


class Reservation(Contract):
    """A spend the ledger has admitted.

    Attributes:
        sequence: Number of the `reserve` line.
        entry: What was admitted.
        state: open = computed or not, it counts; committed = its payload is stored.
        payload_digest: SHA-256 of the stored payload; None while open.
        resumed: Whether an earlier call, maybe before a crash, made the reservation.
    """

    sequence: int
    entry: SpendEntry
    state: Literal["open", "committed"] = "open"
    payload_digest: str | None = None
    resumed: bool = False


class AdministratorWord(Contract):
    """What an administrator changed, and why.

    `release`: an open reservation that was never computed. `reconcile`: a rollback is known and
    charged for; `lost_head` is accepted from now on.
    """

    action: Literal["release", "reconcile"]
    by: str = Field(min_length=1, max_length=128)
    reason: str = Field(min_length=1, max_length=1000)
    reservation: int | None = None
    lost_head: str | None = Field(default=None, pattern=_HEX64)
    charges: list[SpendEntry] = Field(default_factory=list)


class LedgerRecord(Contract):
    """One line of a ledger."""

    ledger: Literal[1] = 1
    sequence: int = Field(ge=0)
    time: str
    site_id: str
    kind: Kind
    entry: SpendEntry | None = None
    reservation: int | None = None
    payload_digest: str | None = Field(default=None, pattern=_HEX64)
    note: str | None = None
    administrator: AdministratorWord | None = None
    previous: str = Field(pattern=_HEX64)
    sha256: str = Field(pattern=_HEX64)

    @classmethod
    def following(cls, last: "LedgerRecord | None", site_id: str, **fields: Any) -> "LedgerRecord":
        """Return the next record of a chain, hashed."""
        body: dict[str, Any] = {
            "sequence": last.sequence + 1 if last else 0,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "site_id": site_id,
            "previous": last.sha256 if last else NO_HASH,
            **fields,
        }
        draft = cls(**body, sha256=NO_HASH)
        return draft.model_copy(update={"sha256": draft.content_hash()})

    def content_hash(self) -> str:
        """Return the SHA-256 of everything but the hash itself."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude={"sha256"})))

    def line(self) -> bytes:
        """Return the record as one line."""
        return canonical_json(self.model_dump(mode="json")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes, last: "LedgerRecord | None", *, where: str) -> "LedgerRecord":
        """Return the record of a line that must follow `last`.

        Raises:
            LedgerError: The line is not what was written, or does not follow.
        """
        try:
            record = cls.model_validate(json.loads(line))
            is_altered = record.line() != line or record.content_hash() != record.sha256
        except (ValueError, ValidationError, RecursionError):
            is_altered = True
        if is_altered:
            raise damaged("a line was changed", where)
        previous, sequence = (last.sha256, last.sequence + 1) if last else (NO_HASH, 0)
        if record.previous != previous or record.sequence != sequence:
            raise damaged("a line does not follow the one before it", where)
        return record


def damaged(what: str, where: str) -> LedgerError:
    """Return the error for a broken chain."""
    return LedgerError(
        what,
        where=where,
        why="the ledger is the only record of what patients' privacy has been spent",
        cure="restore the newest backup or export, then run `tumorboard site ledger reconcile`",
    )
