"""Collect, in one place, what the hospital's side replaces or relies on inside Flower.

Seen with Flower 1.41.0; Flower is pinned below 1.42. Each section says why it is needed and why no
public hook of Flower does instead. For each, `tests/client/flower/test_flower_internals.py` fails
when Flower changes it or no longer needs it.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
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

# --- Messages whose content has not arrived --------------------------------------------------
# A message is visible a moment before its content, and whoever looks often meets that moment in
# every exchange. Flower then pauses 1 s, next 2 s. Node and client app pass no waiting times on,
# and read none from the environment: only the defaults of Flower's functions can be changed.

SHORT_WAITS = {"initial_backoff": 0.02, "backoff_cap": 1.0, "max_tries_per_object": 7200}
"""Pauses in s; retries with the longest pause last as long as Flower's own, two hours."""


def shorten_waits() -> None:
    """Have Flower look again for missing content after 20 ms, then less and less often."""
    for pull in (pull_objects, pull_and_inflate_object_from_tree):
        pull.__kwdefaults__ = {**(pull.__kwdefaults__ or {}), **SHORT_WAITS}


# --- The node's loop -------------------------------------------------------------------------
# The SuperNode sleeps 3 s between two looks for a message and 0.5 s between two looks for its
# reply. Both are plain numbers in its loop, which no argument or variable changes.

IDLE_S = 3
"""What the loop sleeps when there was no message; any shorter sleep waits for a reply."""


def run_supernode(clock: object) -> None:
    """Run `flower-supernode` with another module `time` in its loop; return when the loop ends."""
    vars(import_module("flwr.supernode.start_client_internal"))["time"] = clock
    shorten_waits()
    import_module("flwr.supernode.cli.flower_supernode").flower_supernode()


# --- The node's messages, taken by a process that stays ----------------------------------------
# Flower starts a new process for every message of a client app: 1.3 s of imports each, and the
# server's bundle unpacked on `sys.path`. Its warm executors are for agents, models and connectors
# on Kubernetes alone. What its own client app calls is called here.

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
LOST = "the relay lost the message"


class NodeRuntime:
    """The interface of a SuperNode to whoever runs its client apps.

    Args:
        address: host:port, on loopback.
        secret: Secret shared with the SuperNode.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        self._address = address
        guard = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=frozenset({ACQUIRE})
        )
        self._client = _connect(address, "SuperExec", guard)

    def close(self) -> None:
        """Close the connection to the SuperNode."""
        self._client.close()

    def acquire(self) -> str:
        """Return the token of a message that waits; empty if none does."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        return str(self._client.AcquireTask(request).token)

    @contextmanager
    def task(self, token: str) -> Iterator[RuntimeHttpClient]:
        """Yield a client for the message of a token; signs of life are sent meanwhile.

        The task is finished after the block; a block that raises leaves it unfinished.
        """
        guard = RuntimeTokenHttpInterceptor(token)
        with closing(_connect(self._address, "flwr-clientapp", guard)) as client:
            beat = HeartbeatSender(make_task_heartbeat_fn_http(client))
            beat.start()
            try:
                yield client
            finally:
                if beat.is_running:
                    beat.stop()  # first: a sign of life of a finished task ends this process
            push_task_output(client, None, SubStatus.COMPLETED, "")

    def push_lost(self, token: str, lost: bytes) -> None:
        """Answer a message that was lost, so that it is requested again; tries only once."""
        message = message_from_proto(MessageProto.FromString(lost))
        guard = RuntimeTokenHttpInterceptor(token)
        with closing(_connect(self._address, "flwr-clientapp", guard, patient=False)) as client:
            push(client, Message(Error(ErrorCode.CLIENT_APP_CRASHED, LOST), reply_to=message))
            push_task_output(client, None, SubStatus.COMPLETED, "")


def pull(client: RuntimeHttpClient) -> tuple[Message, Context, bytes]:
    """Return the message of a task, its context and the server's bundle."""
    message, context, _, bundle = pull_task_input(client)
    return message, context, bundle.content


def push(client: RuntimeHttpClient, reply: Message) -> None:
    """Send the reply to the message of a task."""
    about = reply.metadata
    context = Context(about.run_id, about.src_node_id, {}, RecordDict(), {})
    push_message(client, reply, context)


def envelope(message: Message) -> bytes:
    """Return a message without its content: all that a reply needs."""
    return bytes(message_to_proto(remove_content_from_message(message)).SerializeToString())


def _connect(
    address: str, component: str, guard: Any, *, patient: bool = True
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), guard],
        retry_invoker=make_simple_http_retry_invoker() if patient else None,
    )
