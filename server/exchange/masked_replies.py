"""Collect one secure sum over at least n_min sites, or one per group; privacy mode distributed.

A sum has a number that only rises. Sites mask one vector and answer one list of survivors for
each number; a repeated request gets the same bytes. Lost replies are therefore asked for again
within the number, and a number that cannot be opened is void for good: its spend stays spent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import ErrorCode, ProtocolError, RunError
from common.protocol.protocol import EvaluateRequest, TrainRequest
from common.protocol.question import question_digest
from common.secure_sum.ledger_mark import LedgerMark
from common.secure_sum.messages import UnmaskRequest
from common.secure_sum.server_rounds import OpenedSum, SecureSumServer
from common.study.private_round import collusion_of, roster_of, training_collusion_of
from common.wire import Arrays
from server.aggregate.contribution import FEDERATION, Contribution
from server.exchange.enrolment import enrol_returned, expel
from server.exchange.exchange import MAX_ATTEMPTS, Collected, Request, ask, in_words, title
from server.exchange.key_agreement import ClosedUploads, SecureState, agree, confirm, restore
from server.exchange.open_sums import open_sums, proven_liars
from server.exchange.validate_reply import Expected
from server.session.checkpoint import SILENT
from server.session.session import RunSession


class VoidSumError(Exception):
    """A sum that cannot be opened."""


class MaskedReplies:
    """An `Exchange` in which the server sees the sum of all sites alone.

    Args:
        session: The run; what must be remembered is stored in its folder.
    """

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._state = SecureState.load(session.run_dir)
        self._server = restore(session, self._state) if self._state.session else None
        self._rekey = self._server is None
        self._marks: dict[str, LedgerMark] = {}

    def collect(self, requests: Mapping[str, Request], expected: Expected) -> Collected:
        """Return each opened sum as a contribution; a round of training may be void instead.

        A round of a study with groups has a sum per group. Those that cannot be opened are void,
        the others count. Of fewer than three no rule can tell which one holds a lie, but the
        rounds together can (`server.aggregate.group_history`).

        Raises:
            RunError: Too few sites agree on keys, or tables cannot be opened (QUORUM).
        """
        request = next(iter(requests.values()))
        training = isinstance(request, TrainRequest)
        if training:
            enrol_returned(self._session)
        server = self._agreed_server()
        number, requests = self._numbered(requests)
        grouped = training and self._session.study.privacy.groups > 1
        dropped: dict[str, str] = {}
        try:
            sums = server.by_group(number) if grouped else [server]
            length = sum(map(math.prod, expected.shapes.values()))
            question = self._question(requests, length)
            for part in sums:
                part.start(number, length, question)
            self._upload(sums, number, requests, expected, dropped)
            opened = self._open(sums, number, expected, dropped)
            return self._collected(opened, dropped, grouped=grouped)
        except VoidSumError as void:
            return self._void(request, str(void), dropped)

    def _collected(
        self,
        opened: Sequence[tuple[OpenedSum, Arrays]],
        dropped: dict[str, str],
        *,
        grouped: bool,
    ) -> Collected:
        if not grouped:
            [(total, arrays)] = opened
            shares = len(total.survivors) / collusion_of(self._session.study).shares
            contributions = [Contribution(FEDERATION, arrays)]
            return Collected(contributions, total.survivors, dropped, shares=shares)
        contributions = [
            Contribution(f"group-{place}", arrays, members=tuple(total.survivors))
            for place, (total, arrays) in enumerate(opened, start=1)
        ]
        sites = sorted(name for total, _ in opened for name in total.survivors)
        return Collected(contributions, sites, dropped)

    def _agreed_server(self) -> SecureSumServer:
        """Return the server's part; keys are agreed on first if a site joined, left or lost its.

        Raises:
            RunError: Fewer than n_min sites take part.
        """
        key_holders = {advert.site_id for advert in self._state.adverts}
        run = self._session.state
        if self._server is None or (
            self._rekey
            or (run.revoked | run.expelled) & key_holders
            or not set(run.enrolled) <= key_holders
        ):
            self._server, state = agree(self._session, self._state)
            self._store(state)
            self._rekey = False
        self._store(confirm(self._session, self._server, self._state))
        return self._server

    def _numbered(self, requests: Mapping[str, Request]) -> tuple[int, Mapping[str, Request]]:
        """Return the number of a sum and the requests that name it.

        A training round is its own number; a phase of an evaluation gets one beyond them, the
        same whenever it is asked again.
        """
        request = next(iter(requests.values()))
        if not isinstance(request, EvaluateRequest):
            return request.round, requests
        name, numbers = f"{request.label} {request.phase} {request.round}", self._state.numbers
        if name not in numbers:
            numbers = {**numbers, name: self._session.study.training.rounds + len(numbers) + 1}
            self._store(self._state.model_copy(update={"numbers": numbers}))
        update = {"sum_round": numbers[name]}
        shared = {id(r): r.model_copy(update=update) for r in requests.values()}
        return numbers[name], {site: shared[id(r)] for site, r in requests.items()}

    def _question(self, requests: Mapping[str, Request], length: int) -> str:
        """Return the digest of what all sites are asked; they mask their answers under it."""
        study = self._session.state.study_digest
        (question,) = {question_digest(study, r, length) for r in requests.values()}
        return question

    def _upload(
        self,
        sums: Sequence[SecureSumServer],
        number: int,
        requests: Mapping[str, Request],
        expected: Expected,
        dropped: dict[str, str],
    ) -> None:
        """Add up the masked uploads, each in its sum; note in `dropped` who is missing and why.

        Raises:
            VoidSumError: Not all of the sites returned whose list of survivors was sent before.
        """
        sites, uploads = list(self._state.agreed), self._state.closed
        is_closed = uploads is not None and uploads.number == number
        if uploads is not None and is_closed:
            sites = list(uploads.survivors)  # the only list sites will answer for this number
        dropped |= {a.site_id: SILENT for a in self._state.adverts if a.site_id not in sites}
        sum_of = {name: part for part in sums for name in part.site_ids}
        senders: set[str] = set()
        self._marks.clear()

        def check(reply: Any, site_id: str) -> None:
            expected.check_masked(reply, site_id, self._state.session)
            check_mark(reply.ledger_mark, self._session, site_id, number)

        for attempt in range(1, MAX_ATTEMPTS + 1):
            pending = {s: requests[s] for s in sites if s in requests and s not in senders}
            valid, missing = ask(self._session, pending, check)
            dropped |= missing
            self._rekey = self._rekey or ErrorCode.SECURE_SUM in missing.values()
            for site_id, reply in valid.items():
                try:
                    sum_of[site_id].collect(site_id, reply.arrays)
                except ProtocolError as error:
                    dropped[site_id] = str(error.code)
                else:
                    self._marks[site_id] = reply.ledger_mark
                    senders.add(site_id)
                    dropped.pop(site_id, None)
            filled = [p for p in sums if len(senders & set(p.site_ids)) >= p.context.n_min]
            enough = len(filled) == len(sums) or (filled and attempt > 1)
            if set(sites) <= senders or (enough and not is_closed):
                return
        if is_closed:
            raise VoidSumError("not all of the sites that agreed on keys returned")

    def _open(
        self,
        sums: Sequence[SecureSumServer],
        number: int,
        expected: Expected,
        dropped: dict[str, str],
    ) -> list[tuple[OpenedSum, Arrays]]:
        """Return the sums with what they hold, unmasked with the help of their survivors.

        Raises:
            VoidSumError: No sum can be opened.
        """
        asked: dict[str, UnmaskRequest] = {}
        voids: list[str] = []
        for part in sums:
            marks = [mark for name, mark in self._marks.items() if name in part.site_ids]
            try:
                asked |= part.unmask_requests(marks)
            except RunError as error:
                voids.append(error.what)
        if not asked:
            raise VoidSumError("; ".join(voids))
        uploads = ClosedUploads(number=number, survivors=sorted(asked))
        self._store(self._state.model_copy(update={"closed": uploads}))
        opening = open_sums(self._session, sums, asked, expected)
        self._rekey = self._rekey or opening.keys_lost
        dropped |= opening.dropped
        if opening.refused:
            self._name_liars(opening.refused, dropped)
        voids += opening.voids
        if not opening.opened:
            raise VoidSumError("; ".join(voids))
        if voids:
            self._session.output.say(f"sum {number}: without some groups: {'; '.join(voids)}")
        return opening.opened

    def _name_liars(self, refused: list[list[str]], dropped: dict[str, str]) -> None:
        """Put out of the run whoever must be lying, if no more than t sites do."""
        refused = [*self._state.refused, *refused]
        self._store(self._state.model_copy(update={"refused": refused}))
        most = training_collusion_of(self._session.study).colluders
        liars = set(proven_liars(refused, most)) - self._session.state.expelled
        expel(self._session, sorted(liars), "made sums longer than honest ones can be")
        dropped |= dict.fromkeys(liars, str(ErrorCode.FALSE_SHARES))

    def _void(self, request: Request, why: str, dropped: dict[str, str]) -> Collected:
        if isinstance(request, TrainRequest):
            self._session.output.say(f"{title(request)} is void: {why} {dropped}")
            return Collected([], [], dropped, void=why)
        raise RunError(
            f"{title(request)}: the tables cannot be opened: {why}",
            where=self._session.state.run_id,
            why=in_words(dropped),
            cure="bring the sites back and run the same command again: training is not repeated",
            code=ErrorCode.QUORUM,
        )

    def _store(self, state: SecureState) -> None:
        if state != self._state:
            state.save(self._session.run_dir)
            self._state = state


def check_mark(mark: LedgerMark | None, session: RunSession, site_id: str, number: int) -> None:
    """Accept the ledger mark of an upload; with another one the hospitals would open no sum.

    Raises:
        ProtocolError: It is missing, of another sum, or not signed by the site (SECURE_SUM).
    """
    identity = mark and (mark.site_id, mark.run_id, mark.number)
    wanted_identity = (site_id, session.state.run_id, number)
    key = roster_of(session.study)[site_id]
    if mark is None or identity != wanted_identity or not mark.is_signed_by(key):
        raise ProtocolError(
            "the upload carries no ledger mark of its sender",
            where=site_id,
            why="hospitals help to open no sum without it",
            code=ErrorCode.SECURE_SUM,
        )
