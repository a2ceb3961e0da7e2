"""The site agent: the only process that reads patients, and all a hospital answers.

Every call passes the hospital's policy before data is read, every release passes the ledger
before it is computed, and a repeated request gets the stored bytes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from client.agent.admission import agreed_release, check_policy, read_study
from client.agent.evaluation import check_evaluation, evaluate_held_out
from client.agent.open_run import (
    AcceptedRun,
    DatasetProvider,
    OpenRun,
    load_run,
    open_run,
    remember_run,
    stored_features,
)
from client.agent.spending import Spending
from client.agent.training import check_request, train_openly, train_with_local_noise
from common.errors import ErrorCode, PrivacyError, TumorboardError
from common.protocol import (
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    HandshakeRequest,
    StatusReply,
    StatusRequest,
    TrainReply,
    TrainRequest,
)
from common.provenance import code_digest
from common.site_policy import SitePolicy

_log = logging.getLogger("tumorboard.agent")
Activity = Literal["idle", "training", "evaluating"]


class SiteAgent:
    """One hospital's agent; implements `common.protocol.AgentApi`.

    Calls are answered one at a time; `status` is answered at once.

    Args:
        policy: The hospital's policy, with absolute paths and recorded approvals.
        provider: Returns the patients for a study; by default the manifest and feature store
            that the policy names.
    """

    def __init__(self, policy: SitePolicy, provider: DatasetProvider | None = None) -> None:
        self._policy = policy
        self._provider = provider or stored_features(policy)
        self._spending = Spending(policy)
        self._open: OpenRun | None = None
        self._lock = threading.Lock()
        self._activity: tuple[Activity, str | None, int | None] = ("idle", None, None)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process boundary without open runs; all state is on disk."""
        return (SiteAgent, (self._policy, self._provider))

    @property
    def site_id(self) -> str:
        """The hospital's identifier."""
        return self._policy.site_id

    def handshake(self, request: HandshakeRequest) -> HandshakeReply:
        """Check code, study, policy, budget and cohort, in this order; store the run.

        A refusal is a reply with `accepted` false and a stable code; its text stays in the log.
        """
        with self._lock:
            try:
                return self._accept(request)
            except TumorboardError as error:
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
        with self._lock, self._doing("training", request.run_id, request.round):
            run = self._run(request.run_id)
            check_request(run, request)
            mode = run.study.privacy.mode
            if mode == "none":
                return train_openly(run, request, self.site_id, self._spending)
            stored = self._spending.stored_reply(request, TrainReply)
            if stored is not None:
                return stored
            if mode == "local":
                return train_with_local_noise(run, request, self.site_id, self._spending)
            raise PrivacyError(
                "mode distributed answers through the secure sum only", code=ErrorCode.SECURE_SUM
            )

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Return tables of the held-out patients, or the stored ones for a repeated request.

        Raises:
            TumorboardError: Policy, ledger or data refuse.
        """
        with self._lock, self._doing("evaluating", request.run_id, request.round):
            run = self._run(request.run_id)
            check_evaluation(run, self._policy, request)
            stored = self._spending.stored_reply(request, EvaluateReply)
            if stored is not None:
                return stored
            return evaluate_held_out(run, request, self.site_id, self._spending)

    def status(self, request: StatusRequest) -> StatusReply:
        """Return what the agent is doing, without any patient statistic."""
        state, run_id, number = self._activity
        return StatusReply(site_id=self.site_id, state=state, run_id=run_id, round=number)

    def _accept(self, request: HandshakeRequest) -> HandshakeReply:
        study = read_study(request)
        check_policy(study, self._policy)
        release = agreed_release(study, self._policy)
        self._spending.require_head(request.ledger_head)
        self._spending.check_plan(study, request.run_id, release)
        run = open_run(self._policy, request.run_id, study, self._provider)
        accepted = AcceptedRun(
            run_id=request.run_id, study_digest=run.study_digest, study_json=request.study_json
        )
        remember_run(self._policy, accepted)
        self._open = run
        return HandshakeReply(
            site_id=self.site_id,
            accepted=True,
            code_digest=code_digest(),
            study_digest=run.study_digest,
            modalities=list(run.modalities),
            release=release,
            ledger_head=self._spending.head,
        )

    def _run(self, run_id: str) -> OpenRun:
        if self._open is None or self._open.run_id != run_id:
            self._open = load_run(self._policy, run_id, self._provider)
        else:
            check_policy(self._open.study, self._policy)
        return self._open

    @contextmanager
    def _doing(self, activity: Activity, run_id: str, number: int) -> Iterator[None]:
        self._activity = (activity, run_id, number)
        try:
            yield
        finally:
            self._activity = ("idle", None, None)
