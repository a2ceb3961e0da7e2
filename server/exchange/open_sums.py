"""Open the sums of one number with the help of their survivors: one over all sites, or by group.

A sum that cannot be opened, or that is longer than its hospitals together can have made it, is
void by itself; the others of its number stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from common.errors import ErrorCode, ProtocolError, RunError
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.secure_sum.server_rounds import FalseSharesError, OpenedSum, SecureSumServer
from common.wire import Arrays
from server.exchange.enrolment import expel
from server.exchange.exchange import MAX_ATTEMPTS, send
from server.exchange.validate_reply import Expected
from server.session.checkpoint import SILENT
from server.session.session import RunSession
from server.session.site_link import Refusal


@dataclass
class Opening:
    """What came of the sums of one number.

    Attributes:
        opened: Each opened sum with what it holds.
        voids: Why each other sum is void, in words.
        dropped: Site -> code, or `silent`, of sites that are why.
        refused: Survivors of each sum that was longer than they can have made it.
        keys_lost: Whether a site has other keys than the sum was masked with.
    """

    opened: list[tuple[OpenedSum, Arrays]] = field(default_factory=list)
    voids: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    refused: list[list[str]] = field(default_factory=list)
    keys_lost: bool = False


def open_sums(
    session: RunSession,
    sums: Sequence[SecureSumServer],
    asked: Mapping[str, UnmaskRequest],
    expected: Expected,
) -> Opening:
    """Ask the survivors, again if answers are lost, and open what can be opened.

    Args:
        session: The run; whose shares are false is put out of it.
        sums: The server's part of each, all uploads in.
        asked: Survivor -> what to ask it; sums without any are left alone.
        expected: The form of what a sum holds.
    """
    result, answers = Opening(), dict[str, UnmaskReply]()
    waiting = {place for place, part in enumerate(sums) if set(part.site_ids) & set(asked)}
    failures: dict[int, str] = {}
    for _attempt in range(MAX_ATTEMPTS):
        due = {name for place in waiting for name in sums[place].site_ids}
        missing = {s: r for s, r in asked.items() if s in due and s not in answers}
        replies = send(session, "unmask", missing)
        answers |= {s: r for s, r in replies.items() if isinstance(r, UnmaskReply)}
        refusals = [r.code for r in replies.values() if isinstance(r, Refusal)]
        result.keys_lost = result.keys_lost or ErrorCode.SECURE_SUM in refusals
        for place in sorted(waiting):
            own = [answers[name] for name in sums[place].site_ids if name in answers]
            try:
                _open(session, sums[place], own, expected, result)
                waiting.remove(place)
            except (RunError, ProtocolError) as error:
                failures[place] = error.what
        if not waiting:
            break
    result.voids += [failures[place] for place in sorted(waiting)]
    silent = {s for place in waiting for s in sums[place].site_ids if s in asked}
    result.dropped |= dict.fromkeys(silent - set(answers), SILENT)
    return result


def _open(
    session: RunSession,
    part: SecureSumServer,
    answers: Sequence[UnmaskReply],
    expected: Expected,
    result: Opening,
) -> None:
    """Add one sum to the result, or why it is void for good.

    Raises:
        RunError: Too few answers so far.
        ProtocolError: The answers contradict each other, and nobody can be named.
    """
    try:
        total = part.open(answers)
    except FalseSharesError as error:
        expel(session, error.sites, "sent false shares of its masks")
        result.dropped |= dict.fromkeys(error.sites, str(ErrorCode.FALSE_SHARES))
        result.voids.append(f"false shares of {error}")
        return
    try:
        result.opened.append((total, expected.decode(total.total, total.survivors)))
    except ProtocolError as error:
        names, number = ",".join(total.survivors), answers[0].round
        session.journal.write("sum_refused", round=number, sites=names, code=str(error.code))
        result.voids.append(f"{error.what}: one of {names} lies")
        result.refused.append(total.survivors)


def proven_liars(refused: Sequence[Sequence[str]], most: int) -> list[str]:
    """Return who must be lying if every refused sum holds a lie, and at most so many sites lie.

    Example:
        >>> proven_liars([["a", "b", "c"], ["b", "c", "d"], ["a", "b", "e"]], 1)
        ['b']
        >>> proven_liars([["a", "b", "c"], ["d", "e", "f"]], 1)
        []
    """
    sites = sorted({name for names in refused for name in names})
    explanations = [
        set(chosen)
        for size in range(1, most + 1)
        for chosen in combinations(sites, size)
        if all(set(chosen) & set(names) for names in refused)
    ]
    return sorted(set.intersection(*explanations)) if explanations else []
