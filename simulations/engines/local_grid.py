"""Deliver Flower's messages within this process, as function calls of the client app.

The same apps run as in deployment. Content is copied in both directions, so that no site can
change what another one, or the server, holds.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from uuid import uuid4

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from server.flower.flower_internals import begin_server_task, number_message

APP_RAISED = 1
"""Flower's error code for a client app that raised."""


class Silence(BaseException):
    """A simulated site says nothing: no handler on the way turns this into a reply."""


class LocalGrid(Grid):
    """Calls one client app for every node, in order, when messages are pushed.

    Args:
        client_app: The app all nodes run.
        n_nodes: Number of nodes; node i + 1 has `partition-id` i in its node configuration.
    """

    def __init__(self, client_app: ClientApp, n_nodes: int) -> None:
        self._app = client_app
        self._run: Any = None
        self._replies: dict[str, Message] = {}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": n_nodes},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, n_nodes + 1)
        }
        begin_server_task()

    def set_run(self, run: Any) -> None:
        """Set Flower's description of the run; nothing here asks for it."""
        self._run = run

    @property
    def run(self) -> Any:
        """What was set."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver the messages, keep the replies, return the message ids."""
        message_ids = []
        for message in messages:
            message_id = str(uuid4())
            number_message(message, message_id)
            reply = self._deliver(message)
            if reply is not None:
                self._replies[message_id] = reply
            message_ids.append(message_id)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, each once."""
        return [self._replies.pop(m) for m in list(message_ids) if m in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver the messages and return all replies."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        try:
            with _one_thread():
                return deepcopy(self._app(deepcopy(message), self._contexts[node]))
        except Silence:
            return None
        except Exception as error:  # what a real SuperNode does with a client app that raises
            return Message(Error(code=APP_RAISED, reason=type(error).__name__), reply_to=message)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
