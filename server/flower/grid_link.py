"""Link to the sites (`SiteLink`) over Flower's Grid.

Messages are pushed and pulled with an own short poll; Flower's `send_and_receive` sleeps three
seconds between looks.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.contract import sha256_hex
from common.errors import ErrorCode, RunError, TumorboardError
from common.protocol.protocol import StatusReply, StatusRequest
from common.study.study import Study
from common.wire import WireMessage
from server.flower.flower_internals import shorten_waits
from server.flower.grid_message import pack, read_reply
from server.flower.node_registry import NodeRegistry
from server.session.site_link import Refusal

MESSAGE_TYPE = "query"
DISCOVERY_S = 1.0
MAX_PUSHES = 5
"""How often one request is pushed again after the transport reported an error."""

MIN_GRACE_S = 2.0
STATUS_TTL_S = 600.0
CHASE_S = 5.0
"""How long a request is out before its node is asked whether it is still there."""


@dataclass
class _Pending:
    """A request on its way to one site."""

    site_id: str
    key: str
    request: WireMessage
    message_id: str | None = None
    node: int = 0
    pushed_at: float = 0.0
    pushes: int = 0
    not_before: float = 0.0


@dataclass
class _Encoded:
    """The last request, encoded once for all sites."""

    request: WireMessage | None = None
    header: str = ""
    payload: bytes = b""
    key: str = field(default="")


class GridLink:
    """Exchanges typed messages with sites over a Flower Grid.

    Which node speaks for which site is proven by the site's identity; see `NodeRegistry`. A
    request that is made again while its message is still out is not sent twice; one that a
    restarted node has lost is.

    Args:
        grid: Flower's Grid.
        roster: Site -> registered identity (hex), or None where the roster has no key.
        poll_s: Shortest pause between two looks for replies; grows to five times that.
        report: Called for every node that is not accepted: claimed site, node, code.

    Every method raises `RunError` (TRANSPORT) when Flower has ended the run.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Mapping[str, str | None],
        *,
        poll_s: float = 0.05,
        report: Callable[[str, int, ErrorCode], None] | None = None,
    ) -> None:
        shorten_waits()
        self._grid = grid
        self._poll_s = poll_s
        self._report = report
        self._nodes = NodeRegistry(roster)
        self._asked: dict[str, tuple[int, float]] = {}
        self._answered: dict[int, float] = {}
        self._refreshed = -DISCOVERY_S
        self._out: dict[str, _Pending] = {}
        self._encoded = _Encoded()

    def site_ids(self) -> tuple[str, ...]:
        """Return the sites whose node is online, sorted."""
        with _transport():
            self._discover()
        return self._nodes.live_sites

    def exchange(
        self,
        method: str,
        requests: Mapping[str, WireMessage],
        *,
        deadline_s: float,
        optional: Collection[str] = (),
        needed: int = 0,
    ) -> dict[str, WireMessage | Refusal]:
        """Send one request per site and return what came back in time; see `SiteLink`."""
        start_time = time.monotonic()
        end = start_time + deadline_s
        waiting = {s: self._take(s, method, request) for s, request in requests.items()}
        answers: dict[str, WireMessage | Refusal] = {}
        pause, in_grace = self._poll_s, False
        while waiting:
            with _transport():
                self._discover()
                self._push(method, waiting.values(), deadline_s)
                replies = self._pull(method, waiting)
                self._chase(waiting.values())
            answers |= replies
            now = time.monotonic()
            enough = sum(not isinstance(a, Refusal) for a in answers.values()) >= needed
            if enough and not in_grace and all(s in optional or self._is_gone(s) for s in waiting):
                end = min(end, now + max(MIN_GRACE_S, 0.5 * (now - start_time)))
                in_grace = True
            if now >= end:
                break
            if waiting:
                pause = self._poll_s if replies else min(pause * 1.5, 5 * self._poll_s)
                time.sleep(min(pause, max(end - now, 0)))
        self._out.update(waiting)
        disputed = [site_id for site_id in waiting if self._nodes.is_disputed(site_id)]
        return answers | dict.fromkeys(disputed, Refusal(str(ErrorCode.UNPROVEN)))

    def _is_gone(self, site_id: str) -> bool:
        if self._nodes.is_disputed(site_id):
            return True
        return self._nodes.was_seen(site_id) and self._nodes.node_of(site_id) is None

    def _take(self, site_id: str, method: str, request: WireMessage) -> _Pending:
        key = f"{method}:{self._encode(request).key}"
        earlier = self._out.pop(site_id, None)
        if earlier is not None and earlier.key == key and earlier.message_id is not None:
            return earlier
        return _Pending(site_id, key, request)

    def _encode(self, request: WireMessage) -> _Encoded:
        if self._encoded.request is not request:
            header, payload = request.encode()
            self._encoded = _Encoded(request, header, payload, sha256_hex(header))
        return self._encoded

    def _push(self, method: str, waiting: Iterable[_Pending], deadline_s: float) -> None:
        """Push what is due, all of it at once: sites that get the same content share it."""
        now = time.monotonic()
        due: list[_Pending] = []
        for pending in waiting:
            node = self._nodes.node_of(pending.site_id)
            if node is None:
                continue
            if pending.node != node:
                pending.message_id, pending.node = None, node  # new, or the site has a new node
            if pending.message_id is None and now >= pending.not_before:
                due.append(pending)
        if not due:
            return
        ttl = 3 * deadline_s + 600
        messages = [Message(c, p.node, MESSAGE_TYPE, ttl=ttl) for p, c in self._packed(method, due)]
        message_ids = list(self._grid.push_messages(messages))
        for pending, message_id in zip(due, [*message_ids, *[None] * len(due)], strict=False):
            pending.message_id, pending.pushed_at = message_id or None, time.monotonic()
            pending.pushes += 1
            pending.not_before = now + 2.0 ** min(pending.pushes - 1, 6)

    def _packed(
        self, method: str, due: Iterable[_Pending]
    ) -> Iterator[tuple[_Pending, RecordDict]]:
        shared: dict[int, RecordDict] = {}
        for pending in due:
            payload = self._encode(pending.request)
            if id(pending.request) not in shared:
                shared[id(pending.request)] = pack(method, payload.header, payload.payload)
            yield pending, shared[id(pending.request)]

    def _pull(self, method: str, waiting: dict[str, _Pending]) -> dict[str, WireMessage | Refusal]:
        by_id = {p.message_id: p for p in waiting.values() if p.message_id is not None}
        answers: dict[str, WireMessage | Refusal] = {}
        for message in self._grid.pull_messages(list(by_id)) if by_id else ():
            pending = by_id.get(message.metadata.reply_to_message_id)
            if pending is None:
                continue
            if message.has_error():
                pending.message_id = None  # the transport failed: push again a little later
                continue
            if message.metadata.src_node_id != pending.node:
                answers[pending.site_id] = Refusal(str(ErrorCode.UNPROVEN))
            else:
                answers[pending.site_id] = read_reply(method, message.content)
            del waiting[pending.site_id]
        for pending in [p for p in waiting.values() if p.message_id is None]:
            if pending.pushes >= MAX_PUSHES:
                answers[pending.site_id] = Refusal(str(ErrorCode.INTERNAL))
                del waiting[pending.site_id]
        return answers

    def _discover(self) -> None:
        now = time.monotonic()
        if now - self._refreshed >= DISCOVERY_S:
            self._refreshed = now
            for node in self._nodes.see(list(self._grid.get_node_ids()), now):
                self._challenge(node)
        for reply in self._grid.pull_messages(list(self._asked)) if self._asked else ():
            node, asked_at = self._asked.pop(reply.metadata.reply_to_message_id)
            is_reply = not reply.has_error() and reply.metadata.src_node_id == node
            status = read_reply("status", reply.content) if is_reply else None
            answer = status if isinstance(status, StatusReply) else None
            is_gated = isinstance(status, Refusal) and status.code == ErrorCode.BUNDLE
            if is_reply:
                self._answered[node] = asked_at
            instead = ErrorCode.BUNDLE if is_gated else ErrorCode.AGENT_AWAY
            code = self._nodes.hear(node, answer, instead=instead)
            if code is not None and self._report is not None:
                self._report(answer.site_id if answer else "", node, code)

    def _challenge(self, node: int) -> None:
        header, payload = StatusRequest(challenge=self._nodes.challenge(node)).encode()
        content = pack("status", header, payload)
        self._asked = {m: (n, at) for m, (n, at) in self._asked.items() if n != node}
        message = Message(content, node, MESSAGE_TYPE, ttl=STATUS_TTL_S)
        for message_id in self._grid.push_messages([message]):
            if message_id:  # none if the node was revoked a moment ago
                self._asked[message_id] = (node, time.monotonic())

    def _chase(self, waiting: Iterable[_Pending]) -> None:
        """Ask nodes that are slow whether they are there, and notice what they lost.

        A node answers in the order of what it was sent. If it has answered a later question but
        not the request, it was restarted in between and the request is pushed again.
        """
        busy = {node for node, _ in self._asked.values()}
        now = time.monotonic()
        for pending in waiting:
            if pending.message_id is None:
                continue
            if self._answered.get(pending.node, pending.pushed_at) > pending.pushed_at:
                pending.message_id = None
            elif pending.node not in busy and now - pending.pushed_at > CHASE_S:
                self._challenge(pending.node)


@contextmanager
def _transport() -> Iterator[None]:
    """Turn whatever Flower raises into one error that a new Flower run fixes."""
    try:
        yield
    except TumorboardError:
        raise
    except Exception as error:
        raise RunError(
            "Flower has ended the run",
            why=type(error).__name__,
            cure="start it again: it continues after the last committed round",
            code=ErrorCode.TRANSPORT,
        ) from error


def roster_keys(study: Study) -> dict[str, str | None]:
    """Return site -> registered identity (hex), None where the roster has no key."""
    return {entry.site_id: entry.public_key for entry in study.sites}
