"""Take the SuperNode's messages to the site agent, in one long-lived process.

Flower would start a new process for every message, 1.3 s of imports each, and unpack the
server's bundle in it. This one process stays, so a message costs milliseconds, and the bundle is
only looked at: one that is not allowed here is answered with its code, and no bundle is ever
unpacked or put on `sys.path`. What runs is the installed `client.flower.flower_app`.

Run as `python -m client.flower.relay --runtime-api 127.0.0.1:9091 --secret FILE --allowed FILE`.
The secret keeps other users of the machine from taking the SuperNode's messages.
"""

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.flower.flower_app import CONFIG, app
from client.flower.flower_internals import NodeRuntime, envelope, pull, push, shorten_waits
from client.flower.relay_wakeup import Bell
from client.site.site_gate import BundleRefusedError, check_bundle, read_allowed


class PendingTask:
    """The message that the relay is handling, so that its successor can answer for it.

    Flower would wait for two missed heartbeats, a minute, before it gives such a message up. The
    file is beside the secret that SuperNode and relay share, in a folder of their user alone;
    it holds no content, and its token is worth nothing once the message is answered.
    """

    def __init__(self, secret: Path) -> None:
        self._path = secret.with_name(f"{secret.name}.task")

    @contextmanager
    def noted(self, token: str, envelope: bytes) -> Iterator[None]:
        """Have token and envelope on file inside the block; a full disk is no obstacle."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(f"{token} {envelope.hex()}")
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def left_behind(self) -> tuple[str, bytes] | None:
        """Return token and envelope that an earlier relay left, once; None if it left none."""
        try:
            token, envelope = self._path.read_text(encoding="ascii").split()
            self._path.unlink()
            return token, bytes.fromhex(envelope)
        except (OSError, ValueError):
            return None


WAKEUP_S = 1.0
"""Seconds between polls without a wake-up."""

_log = logging.getLogger("tumorboard.relay")


class Relay:
    """Answers the messages of one SuperNode, one after the other.

    Args:
        runtime_api: host:port of the SuperNode's runtime interface, on loopback.
        secret: File shared with the SuperNode.
        allowed: File with the digests of the bundles that may be relayed.
    """

    def __init__(self, runtime_api: str, secret: Path, allowed: Path) -> None:
        self._allowed = allowed
        self._bell = Bell(secret)
        self._bell.listen()
        self._pending = PendingTask(secret)
        self._runtime = NodeRuntime(runtime_api, secret.read_bytes())
        shorten_waits()

    def run(self) -> None:
        """Relay until the process is ended."""
        self._answer_left_behind()
        while True:
            token = self._runtime.acquire()
            if token:
                self._relay(token)
            else:
                self._bell.wait(WAKEUP_S)

    def _answer_left_behind(self) -> None:
        """Answer at once for the message that the relay before this one died with."""
        left = self._pending.left_behind()
        if left is not None:
            _log.warning("an earlier relay ended in the middle of a message")
            self._push_lost(*left)

    def _push_lost(self, token: str, lost: bytes) -> None:
        """Have a message asked for again; Flower does so too, a minute after the last heartbeat."""
        try:
            self._runtime.push_lost(token, lost)
        except Exception as error:  # the SuperNode is away, or has been restarted since
            _log.warning("its loss was not reported: %s", type(error).__name__)

    def _relay(self, token: str) -> None:
        loss_message = b""
        try:
            with self._runtime.task(token) as client:
                message, context, bundle = pull(client)
                loss_message = envelope(message)
                with self._pending.noted(token, loss_message):
                    push(client, self._answer(message, context, bundle))
        except Exception as error:  # the relay must stay
            _log.error("a message was not relayed: %s", type(error).__name__)
            if loss_message:
                self._push_lost(token, loss_message)

    def _answer(self, message: Message, context: Context, bundle: bytes) -> Message:
        try:
            check_bundle(bundle, read_allowed(self._allowed))
        except BundleRefusedError as error:
            _log.error("bundle refused (%s): %s", error, error.reason)
            refusal = RecordDict({CONFIG: ConfigRecord({"code": str(error)})})
            return Message(refusal, reply_to=message)
        return app(message, context)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the relay."""
    parser = argparse.ArgumentParser(prog="python -m client.flower.relay", description=__doc__)
    parser.add_argument("--runtime-api", required=True, help="host:port of the SuperNode")
    parser.add_argument("--secret", type=Path, required=True, help="file shared with it")
    parser.add_argument("--allowed", type=Path, required=True, help="digests of allowed bundles")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Relay(options.runtime_api, options.secret, options.allowed).run()


if __name__ == "__main__":
    main()
