"""Pass messages between Flower and the site agent; bytes are passed unread.

It has no access to data and keeps its imports light: Flower would start it again for every
message. `client.flower.relay` keeps it in one lasting process instead. Whatever runs here can at
most ask the agent for what the agent would release anyway. Every exception becomes a fixed code:
Flower would carry its text, patient ids included, to the coordinator.

Of the client's files only this one and `relay` use Flower's public interface; what lies behind it
is in `flower_internals` alone.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.agent.socket_call import PATIENCE_S, call_agent

Call = Callable[[Context, str, str, bytes], tuple[str, bytes]]
"""(context, method, header, payload) -> (header, payload); raises with `.code` to refuse."""

CONFIG, ARRAYS, PAYLOAD = "tumorboard", "payload", "bytes"
INLINE_BYTES = 1 << 20
"""Largest payload that travels inside the record."""

INTERNAL = "TB900"
SOCKET_KEY = "agent-socket"
STATUS_PATIENCE_S = 2.0
"""Seconds an agent that is away is tried for its status; for all else it is given longer."""

_CODE = re.compile(r"^TB\d{3}$")


def make_client_app(call: Call) -> ClientApp:
    """Return the client app that passes every message to `call`.

    Args:
        call: Carries one request to the site agent. What it raises is reduced to the stable
            code in the exception's attribute `code`.
    """
    client_app = ClientApp()

    @client_app.query()
    def relay(message: Message, context: Context) -> Message:
        return Message(_answer(call, message, context), reply_to=message)

    return client_app


def pack(method: str, header: str, payload: bytes) -> RecordDict:
    """Return one request or reply as a Flower record.

    A small payload travels inside the one record: Flower sends every part of a message, and
    every chunk of an array, in a request of its own.
    """
    fields: dict[str, str | bytes] = {"method": method, "header": header}
    if len(payload) <= INLINE_BYTES:
        return RecordDict({CONFIG: ConfigRecord({**fields, PAYLOAD: payload})})
    array = Array(np.frombuffer(payload, dtype=np.uint8))
    return RecordDict({CONFIG: ConfigRecord({**fields}), ARRAYS: ArrayRecord({PAYLOAD: array})})


def unpack(content: RecordDict) -> tuple[str, str, bytes]:
    """Return (method, header, payload) of a Flower record.

    Raises:
        KeyError: A part is missing.
        ValueError: The payload is not bytes.
    """
    config = content.config_records[CONFIG]
    payload = config.get(PAYLOAD)
    if payload is None:
        array = content.array_records[ARRAYS][PAYLOAD].numpy()
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ValueError("the payload is not a vector of bytes")
        payload = array.tobytes()
    if not isinstance(payload, bytes):
        raise ValueError("the payload is not bytes")
    return str(config["method"]), str(config["header"]), payload


def _answer(call: Call, message: Message, context: Context) -> RecordDict:
    try:
        method, header, payload = unpack(message.content)
        return pack(method, *call(context, method, header, payload))
    except Exception as error:  # the text must not reach Flower, whatever it is
        code = str(getattr(error, "code", INTERNAL))
        return RecordDict({CONFIG: ConfigRecord({"code": code if _CODE.match(code) else INTERNAL})})


def _call_over_socket(
    context: Context, method: str, header: str, payload: bytes
) -> tuple[str, bytes]:
    socket = Path(str(context.node_config[SOCKET_KEY]))
    patience_s = STATUS_PATIENCE_S if method == "status" else PATIENCE_S
    return call_agent(socket, method, header, payload, patience_s=patience_s)


app = make_client_app(_call_over_socket)
