"""Collect each site's own reply; privacy modes none and local."""

from collections.abc import Collection, Mapping
from typing import Any

from common.errors import ErrorCode, RunError
from common.protocol.protocol import TrainReply, TrainRequest
from server.aggregate.contribution import Contribution
from server.exchange.enrolment import enrol_returned
from server.exchange.exchange import MAX_ATTEMPTS, Collected, Reply, Request, ask, in_words, title
from server.exchange.validate_reply import Expected
from server.session.session import RunSession


class PlainReplies:
    """An `Exchange` in which the server sees each site's reply."""

    def __init__(self, session: RunSession) -> None:
        self._session = session

    def collect(self, requests: Mapping[str, Request], expected: Expected) -> Collected:
        """Return one contribution per site; sites that fail are asked again while too few answer.

        Raises:
            RunError: Too few valid replies in every attempt (QUORUM).
        """
        session, name = self._session, title(next(iter(requests.values())))
        quorum = 1 if self._in_turn(requests) else session.study.quorum.min_sites
        quorum = min(quorum, len(requests))
        valid: dict[str, Reply] = {}
        dropped: dict[str, str] = {}

        def check(reply: Any, site_id: str) -> None:
            expected.check(reply, site_id, session.state.sites[site_id].modalities)

        for attempt in range(1, MAX_ATTEMPTS + 1):
            site_ids = self._addressees(requests, attempt, valid)
            replies, missing = ask(session, {site: requests[site] for site in site_ids}, check)
            valid |= replies
            dropped = {s: code for s, code in (dropped | missing).items() if s not in valid}
            if len(valid) >= quorum:
                contributions = [_contribution(valid[site]) for site in sorted(valid)]
                return Collected(contributions, sorted(valid), dropped, attempt)
            session.output.say(
                f"{name}, attempt {attempt}: {len(valid)} usable replies, {quorum} needed {dropped}"
            )
        raise RunError(
            f"{name}: {len(valid)} sites sent a usable reply, at least {quorum} are needed",
            where=session.state.run_id,
            why=in_words(dropped),
            cure="bring the sites back and run the same command again: it continues from here",
            code=ErrorCode.QUORUM,
        )

    def _addressees(
        self, requests: Mapping[str, Request], attempt: int, valid: Collection[str]
    ) -> list[str]:
        """Return who is asked now: all that have not answered, or the one whose turn it is.

        If that one fails, the next attempt asks the next.
        """
        request = next(iter(requests.values()))
        if isinstance(request, TrainRequest):
            enrol_returned(self._session)
        sites = self._session.state.enrolled
        if self._in_turn(requests) and sites:
            return [sites[(request.round + attempt - 2) % len(sites)]]
        return [site for site in sites if site in requests and site not in valid]

    def _in_turn(self, requests: Mapping[str, Request]) -> bool:
        training = isinstance(next(iter(requests.values())), TrainRequest)
        return training and self._session.study.training.schedule == "cyclic"


def _contribution(reply: Reply) -> Contribution:
    if isinstance(reply, TrainReply):
        steps = reply.steps or 1
        return Contribution(reply.site_id, reply.arrays, reply.weights, steps, reply.loss)
    return Contribution(reply.site_id, reply.arrays)
