"""Change what passes between an agent and the coordinator: lies of either side."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from common.protocol.protocol import AgentApi
from common.wire import arrays_digest

Change = Callable[[Any], Any]
"""Returns another message, or the same one."""

QUESTION = ("round", "model_digest", "label", "phase")
"""What a reply repeats of its request; a coordinator that lied changes it back for its own code."""


class AlteredAgent:
    """An agent that is lied to, or that lies.

    Args:
        agent: The agent.
        requests: Method -> what a lying coordinator makes of the request.
        replies: Method -> what a lying hospital makes of its reply.
    """

    def __init__(
        self,
        agent: AgentApi,
        *,
        requests: Mapping[str, Change] | None = None,
        replies: Mapping[str, Change] | None = None,
    ) -> None:
        self._agent, self._requests, self._replies = agent, requests or {}, replies or {}

    def __getattr__(self, method: str) -> Change:
        """Return the call of a method."""

        def call(request: Any) -> Any:
            asked = self._requests.get(method, _unchanged)(request)
            reply = getattr(self._agent, method)(asked)
            if asked is not request:
                fields = type(reply).model_fields
                same = {n: getattr(request, n) for n in QUESTION if n in fields}
                reply = reply.model_copy(update=same)
            return self._replies.get(method, _unchanged)(reply)

        return call


def another_model(request: Any) -> Any:
    """Return the request with a model of zeros."""
    arrays = {name: np.zeros_like(array) for name, array in request.arrays.items()}
    return request.model_copy(update={"arrays": arrays, "model_digest": arrays_digest(arrays)})


def changed(**fields: Any) -> Change:
    """Return the change of some fields of a message."""
    return lambda message: message.model_copy(update=fields)


def zeroed(*names: str) -> Change:
    """Return the change of some of a message's arrays to zeros."""

    def change(message: Any) -> Any:
        zeros = {name: np.zeros_like(message.arrays[name]) for name in names}
        return message.model_copy(update={"arrays": dict(message.arrays) | zeros})

    return change


LIES: dict[str, tuple[str, Change]] = {
    "another model to train": ("train", another_model),
    "another model to evaluate": ("evaluate", another_model),
    "another label": ("evaluate", changed(label="other")),
    "other cuts": (
        "evaluate",
        changed(score_cuts={"response": [x / 10 for x in range(1, 10)]}, risk_threshold=0.0),
    ),
}
"""What all hospitals but one are asked instead -> method and change."""

GARBAGE: dict[str, tuple[str, Change]] = {
    "commitments of zeros": ("train", zeroed("commitments")),
    "shares of zeros": ("train", zeroed("sealed_shares")),
}
"""What one hospital sends instead -> method and change."""


def _unchanged(message: Any) -> Any:
    return message
