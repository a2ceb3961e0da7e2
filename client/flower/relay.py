"""The warm relay: takes the SuperNode's messages to the site agent, in one lasting process.

Flower would start a new process for every message, 1.3 s of imports each, and unpack the
server's bundle in it. This one process stays, so a message costs milliseconds, and the bundle is
only looked at: one that is not allowed here is answered with its code, and no bundle is ever
unpacked or put on `sys.path`. What runs is the installed `client.flower.flower_app`.

Run as `python -m client.flower.relay --runtime-api 127.0.0.1:9091 --secret FILE --allowed FILE`.
The secret keeps other users of the machine from taking the SuperNode's messages.

This leans on internal names of Flower; Flower is pinned, and a test drives the real one.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore import heartbeat
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.flower.flower_app import CONFIG, app
from client.flower.pending_task import LOST, TaskInHand
from client.flower.relay_wakeup import Bell
from client.flower.supernode import BUSY_S, HEARTBEAT_S
from client.site.site_gate import BundleRefusedError, check_bundle, read_allowed
from common.process.late_content import shorten_waits

SHORTEST_S = 0.02
LONGEST_S = 0.25
RUNG_S = 1.0
"""So often it looks though the bell did not ring."""

_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_log = logging.getLogger("tumorboard.relay")


class Relay:
    """Answers the messages of one SuperNode, one after the other.

    Args:
        runtime_api: host:port of the SuperNode's runtime interface, on loopback.
        secret: File shared with the SuperNode.
        allowed: File with the digests of the bundles that may be relayed.
    """

    def __init__(self, runtime_api: str, secret: Path, allowed: Path) -> None:
        self._address, self._allowed = runtime_api, allowed
        self._bell = Bell(secret)
        self._hears = self._bell.listen()
        self._in_hand = TaskInHand(secret)
        guard = SuperExecAuthHttpInterceptor(
            master_secret=secret.read_bytes(), protected_methods=_ACQUIRE
        )
        self._tasks = self._connect("SuperExec", guard)
        vars(heartbeat)["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT_S
        shorten_waits(pull_objects, pull_and_inflate_object_from_tree)

    def run(self) -> None:
        """Relay until the process is ended."""
        self._give_up_what_was_left()
        busy_until = 0.0
        while True:
            token = self._acquire()
            if token:
                self._relay(token)
                busy_until = time.monotonic() + BUSY_S
            elif self._hears:
                self._bell.wait(RUNG_S)
            else:
                time.sleep(SHORTEST_S if time.monotonic() < busy_until else LONGEST_S)

    def _acquire(self) -> str:
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        return str(self._tasks.AcquireTask(request).token)

    def _give_up_what_was_left(self) -> None:
        """Tell the SuperNode at once which message the relay before this one died with."""
        token = self._in_hand.left_behind()
        if token:
            _log.warning("an earlier relay ended in the middle of a message; it is asked for again")
            guard = RuntimeTokenHttpInterceptor(token)
            client = self._connect("flwr-clientapp", guard, patient=False)
            push_task_output(client, None, SubStatus.FAILED, LOST)
            client.close()

    def _relay(self, token: str) -> None:
        client = self._connect("flwr-clientapp", RuntimeTokenHttpInterceptor(token))
        beat = heartbeat.HeartbeatSender(heartbeat.make_task_heartbeat_fn_http(client))
        beat.start()
        context: Context | None = None
        status, details = SubStatus.FAILED, LOST
        try:
            message, context, _, bundle = pull_task_input(client)
            with self._in_hand.noted(token):
                push_message(client, self._answer(message, context, bundle), context)
            status, details = SubStatus.COMPLETED, ""
        except Exception as error:  # a lost message is asked for again; the relay must stay
            _log.error("a message was not relayed: %s", type(error).__name__)
        finally:
            push_task_output(client, context, status, details)
            beat.stop()
            client.close()

    def _answer(self, message: Message, context: Context, bundle: Fab) -> Message:
        try:
            check_bundle(bundle.content, read_allowed(self._allowed))
        except BundleRefusedError as error:
            _log.error("bundle refused (%s): %s", error, error.reason)
            refusal = RecordDict({CONFIG: ConfigRecord({"code": str(error)})})
            return Message(refusal, reply_to=message)
        return app(message, context)

    def _connect(
        self, component: str, interceptor: Any, *, patient: bool = True
    ) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=component), interceptor],
            retry_invoker=make_simple_http_retry_invoker() if patient else None,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the relay."""
    parser = argparse.ArgumentParser(prog="python -m client.flower.relay", description=__doc__)
    parser.add_argument("--runtime-api", required=True, help="host:port of the SuperNode")
    parser.add_argument("--secret", type=Path, required=True, help="file shared with it")
    parser.add_argument("--allowed", type=Path, required=True, help="digests of allowed bundles")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Relay(given.runtime_api, given.secret, given.allowed).run()


if __name__ == "__main__":
    main()
