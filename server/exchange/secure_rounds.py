"""Secure sums over the sites of a run: ask, add up, and open what n_min sites stand behind.

A sum has a number that only rises. Sites mask one vector and answer one list of survivors for
each number; a repeated request gets the same bytes. Lost replies are therefore asked for again
within the number, and a number that cannot be opened is void for good: its spend stays spent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common.errors import ErrorCode, ProtocolError, RunError
from common.secure_sum.messages import UnmaskReply
from common.secure_sum.server_rounds import OpenedSum, SecureSumServer
from common.wire import Arrays
from server.exchange.enrolment import known_code
from server.exchange.key_agreement import agree, confirm, restore
from server.exchange.secure_state import ClosedUploads, SecureState
from server.session.checkpoint import SILENT
from server.session.session import RunSession
from server.session.site_link import Refusal

MAX_ATTEMPTS = 3

Ask = Callable[[list[str]], Mapping[str, Arrays | str | None]]
"""Sites -> upload, or refusal code, or None for silence."""


class VoidSumError(Exception):
    """A sum that cannot be opened; `dropped` says who is missing and why."""

    def __init__(self, why: str, dropped: dict[str, str]) -> None:
        self.why, self.dropped = why, dropped
        super().__init__(why)


class SecureRounds:
    """The secure sums of one open run.

    Args:
        session: The run; what must be remembered is stored in its folder.
    """

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._state = SecureState.load(session.run_dir)
        self._server = restore(session, self._state) if self._state.session else None
        self._rekey = self._server is None

    @property
    def key_session(self) -> int:
        """Number of the key agreement in force."""
        return self._state.session

    def ensure_keys(self) -> None:
        """Agree on keys if there are none, if a site joined, was revoked, or lost its keys.

        Raises:
            RunError: Fewer than n_min sites take part.
        """
        known = {advert.site_id for advert in self._state.adverts}
        run = self._session.state
        if self._rekey or run.revoked & known or not set(run.enrolled) <= known:
            self._server, state = agree(self._session, self._state)
            self._store(state)
            self._rekey = False
        self._store(confirm(self._session, self._agreed(), self._state))

    def number_of(self, name: str) -> int:
        """Return the number of a named sum beyond the training rounds; always the same."""
        if name not in self._state.numbers:
            number = self._session.study.training.rounds + len(self._state.numbers) + 1
            self._store(
                self._state.model_copy(update={"numbers": {**self._state.numbers, name: number}})
            )
        return self._state.numbers[name]

    def open_sum(self, number: int, dimension: int, ask: Ask) -> tuple[OpenedSum, dict[str, str]]:
        """Return the sum over the surviving sites, and who is missing from it.

        Args:
            number: Number of the sum.
            dimension: Length of the vectors.
            ask: Asks sites for their masked uploads.

        Raises:
            VoidSumError: Too few uploads or answers.
        """
        server = self._agreed()
        server.start(number, dimension)
        dropped = self._collect(server, number, ask)
        try:
            requests = server.unmask_requests()
        except RunError as error:
            raise VoidSumError(error.what, dropped) from None
        closed = ClosedUploads(number=number, survivors=sorted(requests))
        self._store(self._state.model_copy(update={"closed": closed}))
        replies: dict[str, UnmaskReply] = {}
        for _attempt in range(MAX_ATTEMPTS):
            missing = {name: r for name, r in requests.items() if name not in replies}
            found = self._session.link.exchange(
                "unmask",
                missing,
                deadline_s=self._session.study.quorum.round_timeout_s,
                optional=self._session.away,
                needed=self._session.needed_of(missing),
            )
            replies |= {n: r for n, r in found.items() if isinstance(r, UnmaskReply)}
            try:
                return server.open(list(replies.values())), dropped
            except (RunError, ProtocolError) as error:
                why = error.what
        silent = {name: SILENT for name in requests if name not in replies}
        raise VoidSumError(why, dropped | silent)

    def _collect(self, server: SecureSumServer, number: int, ask: Ask) -> dict[str, str]:
        wanted = list(self._state.agreed)
        closed = self._state.closed
        told = closed is not None and closed.number == number
        if told and closed is not None:
            wanted = list(closed.survivors)  # the only list sites will answer for this number
        uploaded: set[str] = set()
        dropped = {a.site_id: SILENT for a in self._state.adverts if a.site_id not in wanted}
        for _attempt in range(MAX_ATTEMPTS):
            missing = [name for name in wanted if name not in uploaded]
            for name, upload in ask(missing).items():
                code = self._add(server, name, upload)
                if code is None:
                    uploaded.add(name)
                    dropped.pop(name, None)
                else:
                    dropped[name] = code
            if set(wanted) <= uploaded or (not told and len(uploaded) >= server.context.n_min):
                return dropped
        if told:
            raise VoidSumError("the sites that were told of each other did not all return", dropped)
        return dropped

    def _add(self, server: SecureSumServer, name: str, upload: Arrays | str | None) -> str | None:
        if upload is None:
            return SILENT
        if isinstance(upload, str):
            self._rekey = self._rekey or upload == ErrorCode.SECURE_SUM
            return upload
        try:
            server.collect(name, upload)
        except ProtocolError as error:
            return str(error.code)
        return None

    def _agreed(self) -> SecureSumServer:
        if self._server is None:
            raise RunError("no keys were agreed on", where=self._session.state.run_id)
        return self._server

    def _store(self, state: SecureState) -> None:
        if state != self._state:
            state.save(self._session.run_dir)
            self._state = state


def refusal_code(reply: object) -> str | None:
    """Return the code of a refusal, None for silence, and PROTOCOL for anything unexpected."""
    if reply is None:
        return None
    if isinstance(reply, Refusal):
        return known_code(reply.code)
    return str(ErrorCode.PROTOCOL)
