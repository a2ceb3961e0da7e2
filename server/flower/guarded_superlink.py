"""Run Flower's SuperLink behind a guard that closes what Flower leaves open and logs refusals.

- A signed request of a SuperNode counts once. Flower's node authentication signs a time stamp and
  nothing else, and accepts it for 305 s: whoever reads one request, in a proxy for instance,
  could send it again, or put its headers before a message of his own. A SuperNode signs every
  request anew, so the same time stamp under the same key is a copy.
- `/v1/control`, and every path that is neither a SuperNode's nor an app's, needs the secret that
  is in the coordinator's folder. Without it whoever reaches the port with the CA file could
  start runs.
- Refused callers, and what was done over `/v1/control`, get a line in the signed audit log; so do
  callers that break off TLS because they do not trust the certificate.

Run as `python -m server.flower.guarded_superlink --consortium FOLDER --control-secret FILE`,
followed by the arguments of `flower-superlink`.
"""

import argparse
import hmac
import json
import os
import time
from base64 import b64decode
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ErrorCode
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_internals import (
    CONTROL,
    CONTROL_HEADER,
    FLEET,
    KEY_HEADER,
    KEY_REFUSED,
    READS,
    RUNTIME,
    STAMP_HEADER,
    STAMP_VALID_S,
    run_superlink,
)
from server.flower.refusal_log import Caller, RefusalLog

OPEN = frozenset({"/health", "/v1/fleet"})
"""Asked by whoever looks whether a server is there, the doctors among them."""

UNSEEN = 100
"""Most bytes of a path that are written down."""

TELLING = 2048
"""Bytes of a refusal that are read for Flower's code."""


class Guard:
    """The outermost ASGI layer of the SuperLink.

    Args:
        app: What it guards.
        log: Where callers are written down.
        secret: File with the secret of the control interface; read at every call.
    """

    def __init__(self, app: ASGIApp, *, log: RefusalLog, secret: Path) -> None:
        self._app, self._log, self._secret = app, log, secret
        self._seen = RequestHistory()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a call, or pass it on and look at what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = str(scope["path"]), Headers(scope=scope)
        code, status = self._verdict(path, headers)
        if code is not None:
            self._note(scope, headers, code, str(status))
            await JSONResponse({"detail": str(code)}, status)(scope, receive, send)
            return
        watcher = _Watched(send)
        await self._app(scope, receive, watcher)
        if watcher.status >= 400:
            self._after_refusal(scope, headers, watcher)
        elif path.startswith(CONTROL) and not path.removeprefix(CONTROL).startswith(READS):
            self._log.note(Caller("control_called", path=path, address=_address(scope)))

    def _verdict(self, path: str, headers: Headers) -> tuple[ErrorCode | None, int]:
        if path.startswith(FLEET):
            key, stamp = headers.get(KEY_HEADER), headers.get(STAMP_HEADER)
            if key is None or stamp is None:
                return None, 0  # Flower refuses it
            if self._seen.is_from_before(stamp):
                return ErrorCode.REPLAYED, 503  # a SuperNode signs anew and tries again
            return (ErrorCode.REPLAYED, 425) if self._seen.is_copy(key, stamp) else (None, 0)
        if path.startswith(RUNTIME) or path in OPEN:
            return None, 0
        secret = headers.get(CONTROL_HEADER, "").encode()
        return (
            (None, 0)
            if hmac.compare_digest(secret, self._expected())
            else (ErrorCode.INTERFACE, 403)
        )

    def _expected(self) -> bytes:
        try:
            return self._secret.read_bytes().hex().encode()
        except OSError:
            return os.urandom(32)

    def _after_refusal(self, scope: Scope, headers: Headers, watcher: "_Watched") -> None:
        path, flower_code = str(scope["path"]), watcher.flower_code
        if path.startswith(FLEET) and (watcher.status == 401 or flower_code in KEY_REFUSED):
            if watcher.status == 401:
                self._seen.forget(headers.get(KEY_HEADER, ""), headers.get(STAMP_HEADER, ""))
            code = ErrorCode.NODE_KEY
        elif path.startswith(FLEET) and watcher.status in (400, 415, 422):
            code = ErrorCode.PROTOCOL
        elif watcher.status in (401, 404, 405) and path not in OPEN:
            code = ErrorCode.INTERFACE
        else:
            return  # the run is over, or the SuperLink itself is in trouble
        self._note(scope, headers, code, str(flower_code or watcher.status))

    def _note(self, scope: Scope, headers: Headers, code: ErrorCode, flower_code: str) -> None:
        try:
            key = b64decode(headers.get(KEY_HEADER, ""), validate=True)
        except ValueError:
            key = b""
        path = str(scope["path"])[:UNSEEN].encode("ascii", "replace").decode()
        caller = Caller("caller_refused", str(code), path, _address(scope), key, flower_code)
        self._log.note(caller)


class _Watched:
    """Passes a response on and keeps its status, and the beginning of a refusal."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        elif self.status >= 400 and len(self._body) < TELLING:
            self._body += bytes(message.get("body", b""))[:TELLING]
        await self._send(message)

    @property
    def flower_code(self) -> int | None:
        """Flower's own code of the refusal."""
        try:
            code = json.loads(self._body)["code"]
        except (ValueError, KeyError, TypeError):
            return None
        return code if isinstance(code, int) else None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def main() -> None:
    """Run the SuperLink."""
    parser = argparse.ArgumentParser(prog="python -m server.flower.guarded_superlink")
    parser.add_argument("--consortium", type=Path, required=True, help="the coordinator's folder")
    parser.add_argument("--control-secret", type=Path, required=True, help="file of the secret")
    options, rest = parser.parse_known_args()
    log = RefusalLog(ConsortiumFolder.open(options.consortium))
    guard = Middleware(Guard, log=log, secret=options.control_secret)

    def note_alert(alert: str) -> None:
        log.note(Caller("caller_refused", str(ErrorCode.CERTIFICATE), said=alert))

    run_superlink(rest, guard, note_alert)


KEPT_S = STAMP_VALID_S + 15.0

MOST_KEPT = 1_000_000


class RequestHistory:
    """Time stamps by key, for as long as they could be used again."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._started = datetime.now(UTC)

    def is_copy(self, key: str, stamp: str) -> bool:
        """Return whether this stamp of this key was seen before, and remember it."""
        now = time.monotonic()
        while self._seen and (
            now - next(iter(self._seen.values())) > KEPT_S or len(self._seen) > MOST_KEPT
        ):
            self._seen.popitem(last=False)
        if (key, stamp) in self._seen:
            return True
        self._seen[key, stamp] = now
        return False

    def forget(self, key: str, stamp: str) -> None:
        """Forget a request whose signature turned out to be false."""
        self._seen.pop((key, stamp), None)

    def is_from_before(self, stamp: str) -> bool:
        """Return whether a stamp is older than this server, and not too old for Flower.

        What was seen before the start is forgotten. Whatever is older still, or cannot be read,
        Flower itself refuses.
        """
        try:
            signed = datetime.fromisoformat(stamp)
        except ValueError:
            return False
        if signed.tzinfo is None:
            return False
        recent = (datetime.now(UTC) - signed).total_seconds() < KEPT_S
        return recent and signed < self._started


if __name__ == "__main__":
    main()
