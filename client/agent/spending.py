"""Charge a release to the ledger: reserve, compute, store, commit; sent again at no cost."""

from collections.abc import Sequence
from typing import TypeVar

from client.site.inherited_spends import inherited_spends
from client.site.sealed_replies import ReplyKey, SealedReplies, payload_digest
from common.contract import sha256_hex
from common.errors import BudgetError, ErrorCode, LedgerError
from common.ledger.ledger import Ledger, LedgerBudgets, Reservation, SpendEntry
from common.ledger.ledger_entry import NO_HASH, Partition
from common.ledger.ledger_state import LedgerState
from common.metrics.tables.table_schema import TableNoise
from common.privacy.accounting import pure_mu
from common.privacy.integer_encoding import IntegerEncoding
from common.privacy.plan import Release
from common.protocol.evaluation_request import evaluated_model, planned_evaluation, table_noise
from common.protocol.protocol import (
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
)
from common.study.private_round import collusion_of, releases_per_round, sigma_of
from common.study.site_policy import SitePolicy
from common.study.study import Study

Request = TrainRequest | EvaluateRequest
Reply = TypeVar("Reply", TrainReply, EvaluateReply)

TRAIN = "train"


class Spending:
    """Ledger and sealed replies of one hospital.

    Args:
        policy: Names the files and the budgets.

    Raises:
        LedgerError: The ledger is damaged, older than its own head, or gone.
    """

    def __init__(self, policy: SitePolicy) -> None:
        _require_ledger(policy)
        self._ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
        self._sealed = SealedReplies(policy.state / "replies")
        self._delta = policy.delta

    @property
    def head(self) -> str:
        """Head of the ledger now."""
        return self._ledger.head

    @property
    def position(self) -> int:
        """Number of lines of the ledger now."""
        return len(self._ledger.entries())

    def require_head(self, head: str | None) -> None:
        """Refuse if the server remembers a head that this ledger does not hold.

        Raises:
            LedgerError: With code LEDGER_ROLLBACK.
        """
        self._ledger.require_head(head)

    def check_plan(self, study: Study, run_id: str, release: Release) -> None:
        """Refuse a run whose training or evaluation exceeds what is left.

        What this run has reserved already costs nothing again.

        Raises:
            BudgetError: With code BUDGET.
        """
        if study.privacy.is_private:
            rounds = range(1, study.training.rounds + 1)
            planned = [planned_round(study, run_id, number) for number in rounds]
            self._check_new([*self.inherited(study), *planned])
        evaluations = planned_evaluations(study, run_id, release)
        self._check_new([entry for entry in evaluations if entry.mechanism != "none"])

    def inherited(self, study: Study) -> list[SpendEntry]:
        """Return what earlier trainings of the study's weights cost that is not charged yet."""
        spent = LedgerState(self._ledger.entries()).spends(None, "train")
        return inherited_spends(study, spent)

    def charge_inherited(self, study: Study) -> None:
        """Charge the earlier private trainings of the study's weights, each once.

        Raises:
            BudgetError: A budget would be exceeded.
        """
        for entry in self.inherited(study):
            self._ledger.commit(self._ledger.reserve(entry), entry.model_digest)

    def reserve(self, entry: SpendEntry) -> Reservation:
        """Admit a release; when this returns, patients may be read.

        A reservation left open by a crash is taken up again: its payload was never stored, so
        it was never sent.

        Raises:
            BudgetError: The ledger refuses, or a committed payload is gone (ALREADY_SPENT).
        """
        reservation = self._ledger.reserve(entry)
        if reservation.state == "committed":
            raise BudgetError(
                "the stored reply of this release is gone",
                why="it was sent once and must not be computed again with fresh noise",
                cure="restore the state folder, or let the round pass without this site",
                code=ErrorCode.ALREADY_SPENT,
            )
        return reservation

    def note_open_training(self, study: Study, run_id: str) -> None:
        """Record, once a run, that plain updates leave in mode none."""
        entry = SpendEntry(
            study_digest=study.digest(),
            run_id=run_id,
            round=0,
            model_digest=study.digest(),
            partition="train",
            purpose=TRAIN,
            mechanism="none",
            parameters={"rounds": study.training.rounds},
            mu_squared=0.0,
        )
        reservation = self._ledger.reserve(entry)
        if reservation.state == "open":
            self._ledger.commit(reservation, sha256_hex("plain updates"))

    def seal_and_commit(self, reservation: Reservation, request: Request, reply: Reply) -> Reply:
        """Store a reply durably, commit its spend, and return what is stored."""
        header, payload = self._sealed.store(reply_key(request), *reply.encode())
        self._ledger.commit(reservation, payload_digest(header, payload))
        return type(reply).decode(header, payload)

    def stored_reply(self, request: Request, kind: type[Reply]) -> Reply | None:
        """Return the reply that was sealed for this very request, or None.

        If a crash came between storing and committing, the commit is made up for now.
        """
        message = self._sealed.load(reply_key(request))
        if message is None:
            return None
        digest = payload_digest(*message)
        for reservation in self._ledger.reservations():
            mine = reservation.entry.model_digest == reply_key(request)[3]
            if mine and reservation.entry.key[:3] == entry_key(request):
                self._ledger.commit(reservation, digest)
        return kind.decode(*message)

    def released(self, study: Study) -> list[SpendEntry]:
        """Return everything that left in a study, or was about to, oldest first."""
        digest = study.digest()
        entries = (reservation.entry for reservation in self._ledger.reservations())
        return [entry for entry in entries if entry.study_digest == digest]

    def training_epsilon(self, study: Study) -> float:
        """Return what training in this study has spent so far, at the study's delta."""
        return self._ledger.epsilon(study.digest(), "train", study.privacy.delta)

    def evaluation_epsilon(self, study: Study) -> float:
        """Return what evaluation in this study has spent so far, at the study's delta."""
        return self._ledger.epsilon(study.digest(), "held_out", study.privacy.delta)

    def _check_new(self, entries: Sequence[SpendEntry]) -> None:
        keys = {reservation.entry.key for reservation in self._ledger.reservations()}
        new = [entry for entry in entries if entry.key not in keys]
        if new:
            self._ledger.check_plan(new)


def _require_ledger(policy: SitePolicy) -> None:
    """Refuse to begin a new ledger where runs were accepted: the old one is gone."""
    if policy.ledger.exists() or not any((policy.state / "runs").glob("*.json")):
        return
    raise LedgerError(
        "the ledger is gone",
        where=str(policy.ledger),
        why="this hospital has taken part in runs, and a new ledger would not know what they cost",
        cure="restore the newest backup, or run `tumorboard site ledger reconcile` and charge for "
        "what was lost",
        code=ErrorCode.LEDGER_ROLLBACK,
    )


def reply_key(request: Request) -> ReplyKey:
    """Return the key under which the reply to a request is sealed.

    An evaluation with other cuts is another question about the same model, so its key holds the
    digest of the whole header.
    """
    if isinstance(request, TrainRequest):
        return ("train", request.run_id, request.round, request.model_digest)
    header = sha256_hex(request.model_dump_json())
    return ("evaluate", request.run_id, request.round, header)


def entry_key(request: Request) -> tuple[str, int, str]:
    """Return (run, round, purpose) of a request's ledger entry."""
    if isinstance(request, TrainRequest):
        return (request.run_id, request.round, TRAIN)
    return (request.run_id, request.round, f"evaluate {request.label} {request.phase}")


def private_round_entry(
    study: Study, request: TrainRequest, encoding: IntegerEncoding
) -> SpendEntry:
    """Return the spend of one private round."""
    return SpendEntry(
        study_digest=study.digest(),
        run_id=request.run_id,
        round=request.round,
        model_digest=request.model_digest,
        partition="train",
        purpose=TRAIN,
        mechanism="skellam",
        parameters={
            **encoding.parameters(),
            "rounds": study.training.rounds,
            "releases_per_round": releases_per_round(study),
        },
        mu_squared=releases_per_round(study) * encoding.mu_squared,
    )


def planned_round(study: Study, run_id: str, number: int) -> SpendEntry:
    """Return the spend of a round whose model is not known yet: mu^2 = releases / sigma^2."""
    return SpendEntry(
        study_digest=study.digest(),
        run_id=run_id,
        round=number,
        model_digest=NO_HASH,
        partition="train",
        purpose=TRAIN,
        mechanism="skellam",
        mu_squared=releases_per_round(study) * sigma_of(study) ** -2,
    )


def planned_evaluations(study: Study, run_id: str, release: Release) -> list[SpendEntry]:
    """Return the spends of the final evaluation whose model is not known yet."""
    return [
        evaluation_entry(study, request, table_noise(study, request))
        for request in planned_evaluation(study, run_id, release)
    ]


def evaluation_entry(
    study: Study, request: EvaluateRequest, noise: dict[str, TableNoise]
) -> SpendEntry:
    """Return the spend of one phase of an evaluation."""
    run_id, number, purpose = entry_key(request)
    epsilons = {name: table.epsilon for name, table in noise.items()}
    partition: Partition = "held_out"
    shared = study.privacy.mode == "distributed"
    return SpendEntry(
        study_digest=study.digest(),
        run_id=run_id,
        round=number,
        model_digest=reply_key(request)[3],
        partition=partition,
        purpose=purpose,
        mechanism="geometric" if noise else "none",
        parameters={
            "epsilon": dict(epsilons),
            "shares": collusion_of(study).shares if shared else 1,
            "release": request.release,
            "model": evaluated_model(request),
        },
        mu_squared=sum(pure_mu(epsilon) ** 2 for epsilon in epsilons.values()),
        pure_epsilon=sum(epsilons.values()) if noise else None,
    )
