"""The site agent: the only process that reads patients, and a hospital's full interface.

Every call passes the hospital's policy before data is read, every release passes the ledger
before it is computed, and a repeated request gets the stored bytes.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from client.agent.accepted_run import AcceptedRun, accepted_run, remember_run
from client.agent.admission import (
    agreed_release,
    check_composition,
    check_participants,
    check_policy,
    check_roster,
    read_study,
)
from client.agent.answer_times import fixed_times
from client.agent.evaluation import check_evaluation, evaluate_held_out
from client.agent.open_run import CurrentRun, DatasetProvider, stored_features
from client.agent.questions import check_question
from client.agent.release import MaskedRelease, Release
from client.agent.secure_sums import SecureSums, check_identity
from client.agent.spending import Spending
from client.agent.training import check_request, train
from client.site.hospital_roster import HospitalRoster
from client.site.identity import load_identity
from common.errors import ErrorCode, ProtocolError, TumorboardError
from common.protocol.protocol import (
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    HandshakeRequest,
    StatusReply,
    StatusRequest,
    TrainReply,
    TrainRequest,
)
from common.secure_sum import messages
from common.storage.full_disk import disk_full_of
from common.study.site_policy import RULES, SitePolicy
from common.study.study import Study
from common.trust.provenance import code_digest
from common.trust.roster import Roster
from common.trust.site_proof import prove

_log = logging.getLogger("tumorboard.agent")
Activity = Literal["idle", "training", "evaluating"]


class SiteAgent:
    """One hospital's agent; implements `common.protocol.protocol.AgentApi`.

    Calls are answered one at a time; `status` is answered at once.

    Args:
        policy: The hospital's policy, with absolute paths and recorded approvals.
        provider: Returns the patients for a study; by default the manifest and feature store
            that the policy names.
        reload: Reads the policy again; its rules (`common.study.site_policy.RULES`), consents among
            them, count at once, paths and device when the agent is restarted.
        roster: The consortium's roster as this hospital knows it; None in a simulation.
    """

    def __init__(
        self,
        policy: SitePolicy,
        provider: DatasetProvider | None = None,
        *,
        reload: Callable[[], SitePolicy] | None = None,
        roster: HospitalRoster | None = None,
    ) -> None:
        self._policy, self._reload, self._roster = policy, reload, roster
        self._run = CurrentRun(provider or stored_features(policy))
        self._spending = Spending(policy)
        self._sums: SecureSums | None = None
        self._lock = threading.Lock()
        self._activity: tuple[Activity, str | None, int | None] = ("idle", None, None)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process boundary, in a simulation, without open runs; all state is on disk."""
        return (SiteAgent, (self._policy, self._run.provider))

    @property
    def site_id(self) -> str:
        """The hospital's identifier."""
        return self._policy.site_id

    def handshake(self, request: HandshakeRequest) -> HandshakeReply:
        """Check code, roster, study, policy, budget and cohort, in this order; store the run.

        A refusal is a reply with `accepted` false and a stable code; its text stays in the log.
        """
        with self._lock:
            try:
                return self._accept(request)
            except TumorboardError as error:
                if disk_full_of(error) is not None:
                    raise  # not a refusal of this study
                _log.error("run %s refused\n%s", request.run_id, error)
                return HandshakeReply(
                    site_id=self.site_id,
                    accepted=False,
                    refusal_code=str(error.code),
                    code_digest=code_digest(),
                    study_digest=request.study_digest,
                )

    def train(self, request: TrainRequest) -> TrainReply:
        """Return one round's contribution, or the stored one for a repeated request.

        Raises:
            TumorboardError: Policy, ledger or data refuse.
        """
        with self._answering("training", request):
            run = self._run.take(*self._rules(), request.run_id)
            check_request(run, request)
            reply = self._spending.stored_reply(request, TrainReply)
            if reply is not None:
                return reply
            return train(run, request, self._release(run.study, run.run_id), self._spending)

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Return tables of the held-out patients, or the stored ones for a repeated request.

        Raises:
            TumorboardError: Policy, ledger or data refuse.
        """
        with self._answering("evaluating", request):
            run = self._run.take(*self._rules(), request.run_id)
            check_evaluation(run, self._policy, request)
            reply = self._spending.stored_reply(request, EvaluateReply)
            if reply is not None:
                return reply
            approval = self._policy.approval_of(run.study_digest)
            past = self._spending.released(run.study)
            check_question(run.study, request, past, approval.exact_runs if approval else 0)
            release = self._release(run.study, run.run_id)
            return evaluate_held_out(run, request, release, self._spending)

    def advertise_keys(self, request: messages.AdvertiseRequest) -> messages.AdvertiseReply:
        """Return signed public keys for the secure sums of an accepted run.

        Raises:
            TumorboardError: The run is unknown, of another study, or no longer approved.
        """
        with self._lock:
            study = self._run.study(*self._rules(), request.run_id)
            if study.digest() != request.study_digest:
                raise ProtocolError(
                    "the server asks for keys of a study other than the run's",
                    where=request.run_id,
                    code=ErrorCode.STUDY_DIGEST,
                )
            return self._secure_sums(study, request.run_id).advertise(request)

    def agree_keys(self, request: messages.AgreeKeysRequest) -> messages.AgreeKeysReply:
        """Check everybody's signed keys and derive the secrets of the secure sums.

        Raises:
            TumorboardError: A key is not signed by its registered site, or policy refuses.
        """
        with self._lock:
            policy, roster = self._rules()
            study = self._run.study(policy, roster, request.run_id)
            site_ids = [advert.site_id for advert in request.adverts]
            check_participants(study, site_ids, roster)
            return self._secure_sums(study, request.run_id).agree(
                request, self._spending.require_head
            )

    def unmask(self, request: messages.UnmaskRequest) -> messages.UnmaskReply:
        """Help to open one sum over the named survivors.

        Raises:
            TumorboardError: The list is too short or contradicts an earlier one, or policy
                refuses.
        """
        with self._lock:
            policy, roster = self._rules()
            study = self._run.study(policy, roster, request.run_id)
            check_participants(study, request.survivors, roster)
            return self._secure_sums(study, request.run_id).unmask(request)

    def status(self, request: StatusRequest) -> StatusReply:
        """Return what the agent is doing, without any patient statistic.

        A challenge is signed if this hospital has an identity; see `common.trust.site_proof`.
        """
        state, run_id, number = self._activity
        proof = None
        if request.challenge is not None and self._policy.identity_key.exists():
            identity = load_identity(self._policy.identity_key)
            proof = prove(identity, self.site_id, request.challenge)
        return StatusReply(
            site_id=self.site_id, state=state, run_id=run_id, round=number, proof=proof
        )

    def _read_rules(self) -> None:
        """Take rules that were changed, and consents given or withdrawn, since the last call.

        Raises:
            ConfigError: The policy or a consent cannot be read; nothing is answered then.
        """
        if self._reload is None:
            return
        new_rules = self._reload()
        rules = {name: getattr(new_rules, name) for name in RULES}
        if rules != {name: getattr(self._policy, name) for name in RULES}:
            self._policy = self._policy.model_copy(update=rules)
            self._spending = Spending(self._policy)
            self._run.close()  # the floor of the cohort is looked at when a run is opened

    def _accept(self, request: HandshakeRequest) -> HandshakeReply:
        self._read_rules()
        study = read_study(request)
        roster = self._roster.update(request.roster_json) if self._roster else None
        approval = check_policy(study, self._policy)
        earlier = accepted_run(self._policy, request.run_id)
        is_known = earlier is not None and earlier.study_digest == request.study_digest
        check_roster(study, self.site_id, roster, accepted=is_known)
        if study.privacy.mode == "distributed":
            check_identity(study, self._policy)
        release = agreed_release(study, self._policy)
        self._spending.require_head(request.ledger_head)
        for record in study.weights.trainings:  # where this ledger stood when the weights were made
            self._spending.require_head(record.hospitals.get(self.site_id))
        check_composition(study, approval, self._spending.inherited(study))
        self._spending.check_plan(study, request.run_id, release)
        with fixed_times(study.privacy.answer_seconds):
            run = self._run.admit(self._policy, request.run_id, study)
        self._spending.charge_inherited(study)
        remember_run(
            self._policy,
            AcceptedRun(
                run_id=request.run_id, study_digest=run.study_digest, study_json=request.study_json
            ),
        )
        return HandshakeReply(
            site_id=self.site_id,
            accepted=True,
            code_digest=code_digest(),
            study_digest=run.study_digest,
            modalities=list(run.modalities),
            release=release,
            ledger_head=self._spending.head,
        )

    def _rules(self) -> tuple[SitePolicy, Roster | None]:
        """Return policy and roster as they are now."""
        self._read_rules()
        return self._policy, self._roster.current() if self._roster else None

    def _release(self, study: Study, run_id: str) -> Release:
        if study.privacy.mode == "distributed":
            return MaskedRelease(study, self._secure_sums(study, run_id))
        return Release()

    def _secure_sums(self, study: Study, run_id: str) -> SecureSums:
        if self._sums is None or self._sums.run_id != run_id:
            self._sums = SecureSums(self._policy, study, run_id)
        return self._sums

    @contextmanager
    def _answering(
        self, activity: Activity, request: TrainRequest | EvaluateRequest
    ) -> Iterator[None]:
        with self._lock:
            seconds = self._run.answer_seconds(self._policy, request.run_id)
            self._activity = (activity, request.run_id, request.round)
            try:
                with fixed_times(seconds):
                    yield
            finally:
                self._activity = ("idle", None, None)
