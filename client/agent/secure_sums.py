"""Take part in the secure sums of a run for a hospital: keys, masked uploads, unmasking.

Its secrets are in the state folder, so a restarted agent continues with the same keys. Those of a
run that was not heard of for a week are deleted when the next run opens: whoever breaks into the
hospital later finds no key to uploads that the server may have kept. A run that comes back after
that agrees on keys again.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.site.identity import load_identity, public_key
from client.site.witnesses import Witnesses
from common.errors import ErrorCode, ProtocolError
from common.protocol.protocol import EvaluateRequest, TrainRequest
from common.protocol.question import question_digest
from common.secure_sum.groups import groups_of_study
from common.secure_sum.keys import refused
from common.secure_sum.ledger_mark import LedgerMark
from common.secure_sum.messages import (
    AdvertiseReply,
    AdvertiseRequest,
    AgreeKeysReply,
    AgreeKeysRequest,
    UnmaskReply,
    UnmaskRequest,
)
from common.secure_sum.site_rounds import SecureSumSite
from common.secure_sum.site_state import StateFile
from common.study.private_round import collusion_of, roster_of
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.wire import Arrays

SECRETS_KEPT_S = 7 * 24 * 3600.0
"""Seconds after their last use for which secrets of another run are kept."""


def check_identity(study: Study, policy: SitePolicy) -> None:
    """Refuse a roster that names another key for this hospital.

    Raises:
        ProtocolError: With code POLICY.
        ConfigError: The identity cannot be read.
    """
    if roster_of(study)[policy.site_id] != public_key(load_identity(policy.identity_key)):
        raise ProtocolError(
            "the roster names another public key for this hospital",
            where="study.sites",
            why="somebody else could sum in its place",
            cure="ask the coordinator to admit this hospital's key",
            code=ErrorCode.POLICY,
        )


class SecureSums:
    """The secure sums of one run at one hospital.

    Args:
        policy: Names identity and state folder.
        study: The approved study.
        run_id: The run.
    """

    def __init__(self, policy: SitePolicy, study: Study, run_id: str) -> None:
        self._policy, self._study, self.run_id = policy, study, run_id
        self._file: Path = policy.state / "secure_sums" / f"{run_id}.json"
        _forget_others(self._file)
        self._witnesses = Witnesses(policy.state / "witnesses.json")
        state = StateFile(self._file).load()
        self._site = None if state is None else self._open(state.context.session)

    @property
    def session(self) -> int:
        """Number of the key agreement in force.

        Raises:
            ProtocolError: No keys were agreed on.
        """
        return self._agreed().context.session

    def advertise(self, request: AdvertiseRequest) -> AdvertiseReply:
        """Return signed keys for a session; a later session replaces an earlier one."""
        if self._site is None or self._site.context.session != request.session:
            self._site = self._open(request.session)
        return AdvertiseReply(
            site_id=self._policy.site_id,
            run_id=self.run_id,
            advert=self._site.advertise(self._seen_of_others()),
        )

    def agree(
        self, request: AgreeKeysRequest, require_head: Callable[[str], None]
    ) -> AgreeKeysReply:
        """Check all signed keys and what the others remember of this ledger; derive the secrets.

        Args:
            request: Everybody's signed keys, with the marks that everybody remembers.
            require_head: Raises `LedgerError` for a head that this hospital's ledger does not hold.

        Raises:
            LedgerError: Another hospital remembers a mark of this one that its ledger does not
                hold: the ledger was restored, deleted or cloned (LEDGER_ROLLBACK).
        """
        site = self._site
        if site is None or site.context.session != request.session:
            raise _no_keys("these are not the keys this hospital advertised last")
        digest = site.receive_keys(request.adverts)
        keys = roster_of(self._study)
        marks = {m for a in request.adverts for m in a.witnessed if m.site_id in keys}
        genuine = [mark for mark in marks if mark.is_signed_by(keys[mark.site_id])]
        for mark in genuine:
            if mark.site_id == self._policy.site_id:
                require_head(mark.head)
        self._witnesses.remember(genuine)
        return AgreeKeysReply(
            site_id=self._policy.site_id,
            run_id=self.run_id,
            session=request.session,
            participants_digest=digest,
        )

    def mark(self, number: int, position: int, head: str) -> LedgerMark:
        """Return where the ledger stands, signed, and remember it as this hospital's newest."""
        before = self._witnesses.of(self._policy.site_id)
        if before is not None and (before.run_id, before.number, before.position, before.head) == (
            *(self.run_id, number, position, head),
        ):
            return before  # the round is computed again: its reservation was made before
        mark = LedgerMark(
            site_id=self._policy.site_id,
            run_id=self.run_id,
            number=number,
            position=position,
            head=head,
            previous_position=before.position if before else 0,
            previous_head=before.head if before else None,
        ).signed(load_identity(self._policy.identity_key))
        self._witnesses.remember([mark])
        return mark

    def masked(
        self, number: int, vector: npt.NDArray[np.int64], request: TrainRequest | EvaluateRequest
    ) -> Arrays:
        """Return the masked upload of a noised vector that answers a request; each number once."""
        question = question_digest(self._study.digest(), request, len(vector))
        grouped = self._study.privacy.groups > 1 and isinstance(request, TrainRequest)
        return self._agreed().masked(number, vector, question, grouped=grouped)

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Return the locked answer about one list of survivors whose ledgers went on.

        Raises:
            ProtocolError: A survivor's ledger mark is missing, not its own, or does not follow
                what this hospital remembers; see `SecureSumSite.unmask` for the list itself.
        """
        site, keys = self._agreed(), roster_of(self._study)
        marks = {mark.site_id: mark for mark in request.marks}
        for name in set(request.survivors) - {self._policy.site_id}:
            mark, newest = marks.get(name), self._witnesses.of(name)
            if mark is None or (mark.run_id, mark.number) != (self.run_id, request.round):
                raise refused(f"the ledger mark of '{name}' is missing or of another round")
            if name not in keys or not mark.is_signed_by(keys[name]):
                raise refused(f"the ledger mark of '{name}' is not signed by its identity")
            if newest is not None and not mark.follows(newest):
                raise refused(
                    f"the ledger of '{name}' does not follow what this hospital remembers of it",
                    cure=f"'{name}' restores its newest ledger or reconciles it",
                )
        reply = site.unmask(request)
        self._witnesses.remember(marks[n] for n in request.survivors if n in marks)
        return reply

    def _seen_of_others(self) -> tuple[LedgerMark, ...]:
        roster = roster_of(self._study)
        others = self._witnesses.of_others(self._policy.site_id)
        return tuple(mark for mark in others if mark.site_id in roster)

    def _agreed(self) -> SecureSumSite:
        if self._site is None or not self._site.keys_agreed:
            raise _no_keys("no keys were agreed on")
        return self._site

    def _open(self, session: int) -> SecureSumSite:
        numbers = collusion_of(self._study)
        return SecureSumSite(
            self._policy.site_id,
            load_identity(self._policy.identity_key),
            roster_of(self._study),
            numbers.colluders,
            numbers.n_min,
            run_id=self.run_id,
            study_digest=self._study.digest(),
            session=session,
            groups=groups_of_study(self._study),
            state_file=self._file,
        )


def _forget_others(own: Path) -> None:
    oldest = time.time() - SECRETS_KEPT_S
    for path in own.parent.glob("*.json"):
        if path != own and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def _no_keys(what: str) -> ProtocolError:
    return ProtocolError(
        what,
        where="secure sum",
        cure="the server repeats the key agreement",
        code=ErrorCode.SECURE_SUM,
    )
