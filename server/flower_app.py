"""The server side of Flower: a `SiteLink` over its Grid, and the server app.

Messages are pushed and pulled with an own short poll; Flower's `send_and_receive` sleeps three
seconds between looks. This is the only file of the server side that imports Flower.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from common.cli_output import Output
from common.contract import sha256_hex
from common.errors import ConfigError, ErrorCode, ProtocolError
from common.protocol import METHODS, StatusReply, StatusRequest
from common.study import Study
from common.wire import WireMessage
from server.rounds import run_study
from server.site_link import Refusal

CONFIG, ARRAYS, PAYLOAD = "tumorboard", "payload", "bytes"
MESSAGE_TYPE = "query"
DISCOVERY_S = 1.0
MAX_PUSHES = 5
"""How often one request is pushed again after the transport reported an error."""

MIN_GRACE_S = 2.0


@dataclass
class _Pending:
    """A request on its way to one site."""

    site_id: str
    key: str
    request: WireMessage
    message_id: str | None = None
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

    A node says which site it is in its first `status` reply; the first live node to claim a site
    keeps it. A request that is made again while its message is still out is not sent twice.

    Args:
        grid: Flower's Grid.
        poll_s: Shortest pause between two looks for replies; grows to ten times that.
    """

    def __init__(self, grid: Grid, *, poll_s: float = 0.02) -> None:
        self._grid = grid
        self._poll_s = poll_s
        self._node_of: dict[str, int] = {}
        self._live: frozenset[int] = frozenset()
        self._asked: dict[str, int] = {}
        self._refreshed = -DISCOVERY_S
        self._out: dict[str, _Pending] = {}
        self._encoded = _Encoded()

    def site_ids(self) -> tuple[str, ...]:
        """Return the sites whose node is online, sorted."""
        self._discover()
        return tuple(sorted(s for s, node in self._node_of.items() if node in self._live))

    def exchange(
        self,
        method: str,
        requests: Mapping[str, WireMessage],
        *,
        deadline_s: float,
        optional: Collection[str] = (),
    ) -> dict[str, WireMessage | Refusal]:
        """Send one request a site and return what came back in time; see `SiteLink`."""
        started = time.monotonic()
        end = started + deadline_s
        waiting = {s: self._take(s, method, request) for s, request in requests.items()}
        answers: dict[str, WireMessage | Refusal] = {}
        pause = self._poll_s
        while waiting:
            self._discover()
            self._push(method, waiting.values(), deadline_s)
            arrived = self._pull(method, waiting)
            answers |= arrived
            now = time.monotonic()
            if set(waiting) <= set(optional):
                end = min(end, now + max(MIN_GRACE_S, 0.5 * (now - started)))
                optional = ()
            if now >= end:
                break
            if waiting:
                pause = self._poll_s if arrived else min(pause * 1.5, 10 * self._poll_s)
                time.sleep(min(pause, max(end - now, 0)))
        self._out.update(waiting)
        return answers

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
        now = time.monotonic()
        for pending in waiting:
            node = self._node_of.get(pending.site_id)
            ready = pending.message_id is None and now >= pending.not_before
            if node is None or node not in self._live or not ready:
                continue
            encoded = self._encode(pending.request)
            content = pack(method, encoded.header, encoded.payload)
            ttl = 3 * deadline_s + 600
            message = Message(content, node, MESSAGE_TYPE, ttl=ttl)
            pending.message_id = next(iter(self._grid.push_messages([message])), None)
            pending.pushes += 1
            pending.not_before = now + 2.0 ** min(pending.pushes - 1, 6)

    def _pull(self, method: str, waiting: dict[str, _Pending]) -> dict[str, WireMessage | Refusal]:
        by_id = {p.message_id: p for p in waiting.values() if p.message_id is not None}
        answers: dict[str, WireMessage | Refusal] = {}
        for message in self._grid.pull_messages(list(by_id)) if by_id else ():
            pending = by_id.get(message.metadata.reply_to_message_id)
            if pending is None:
                continue
            if message.has_error():
                pending.message_id = None  # the transport failed: push again a little later
                if pending.pushes < MAX_PUSHES:
                    continue
                answers[pending.site_id] = Refusal(str(ErrorCode.INTERNAL))
            else:
                answers[pending.site_id] = _read(method, message.content)
            del waiting[pending.site_id]
        return answers

    def _discover(self) -> None:
        now = time.monotonic()
        if now - self._refreshed >= DISCOVERY_S:
            self._refreshed = now
            self._live = frozenset(self._grid.get_node_ids())
            known = {*self._node_of.values(), *self._asked.values()}
            for node in sorted(self._live - known):
                header, payload = StatusRequest().encode()
                content = pack("status", header, payload)
                message = Message(content, node, MESSAGE_TYPE, ttl=60.0)
                for message_id in self._grid.push_messages([message]):
                    self._asked[message_id] = node
        if not self._asked:
            return
        for reply in self._grid.pull_messages(list(self._asked)):
            node = self._asked.pop(reply.metadata.reply_to_message_id)
            status = None if reply.has_error() else _read("status", reply.content)
            if isinstance(status, StatusReply):
                holder = self._node_of.get(status.site_id)
                if holder is None or holder not in self._live:
                    self._node_of[status.site_id] = node


def pack(method: str, header: str, payload: bytes) -> RecordDict:
    """Return one request as a Flower record."""
    array = Array(np.frombuffer(payload, dtype=np.uint8))
    return RecordDict(
        {
            CONFIG: ConfigRecord({"method": method, "header": header}),
            ARRAYS: ArrayRecord({PAYLOAD: array}),
        }
    )


def _read(method: str, content: RecordDict) -> WireMessage | Refusal:
    """Return the typed reply; anything that cannot be read is a refusal."""
    try:
        config = content.config_records[CONFIG]
        if "code" in config:
            return Refusal(str(config["code"]))
        payload = content.array_records[ARRAYS][PAYLOAD].numpy()
        if payload.dtype != np.uint8 or payload.ndim != 1:
            return Refusal(str(ErrorCode.PAYLOAD))
        return METHODS[method][1].decode(str(config["header"]), payload.tobytes())
    except ProtocolError as error:
        return Refusal(str(error.code))
    except (KeyError, TypeError, ValueError, EOFError):
        return Refusal(str(ErrorCode.PAYLOAD))


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study named in the run configuration: keys `study` and `run-dir`.

    Raises:
        ConfigError: A key is missing, or the study cannot be read.
    """
    for key in ("study", "run-dir"):
        if not context.run_config.get(key):
            raise ConfigError(
                f"the run configuration lacks '{key}'",
                cure="start the run with `tumorboard server run`, which fills it in",
            )
    study = Study.from_yaml(Path(str(context.run_config["study"])))
    run_study(study, GridLink(grid), Path(str(context.run_config["run-dir"])), output=Output())
