"""Convert requests and replies to Flower records and back."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.errors import ErrorCode, ProtocolError
from common.protocol.protocol import METHODS
from common.wire import WireMessage
from server.session.site_link import Refusal

CONFIG, ARRAYS, PAYLOAD = "tumorboard", "payload", "bytes"
INLINE_BYTES = 1 << 20
"""Largest payload that travels inside the record."""


def pack(method: str, header: str, payload: bytes) -> RecordDict:
    """Return one request as a Flower record.

    A small payload travels inside the one record: Flower sends every part of a message, and
    every chunk of an array, in a request of its own.
    """
    fields: dict[str, str | bytes] = {"method": method, "header": header}
    if len(payload) <= INLINE_BYTES:
        return RecordDict({CONFIG: ConfigRecord({**fields, PAYLOAD: payload})})
    array = Array(np.frombuffer(payload, dtype=np.uint8))
    return RecordDict({CONFIG: ConfigRecord({**fields}), ARRAYS: ArrayRecord({PAYLOAD: array})})


def read_reply(method: str, content: RecordDict) -> WireMessage | Refusal:
    """Return the typed reply; anything that cannot be read is a refusal."""
    try:
        config = content.config_records[CONFIG]
        if "code" in config:
            return Refusal(str(config["code"]))
        payload = config.get(PAYLOAD)
        if payload is None:
            array = content.array_records[ARRAYS][PAYLOAD].numpy()
            payload = array.tobytes() if array.dtype == np.uint8 and array.ndim == 1 else None
        if not isinstance(payload, bytes):
            return Refusal(str(ErrorCode.PAYLOAD))
        return METHODS[method][1].decode(str(config["header"]), payload)
    except ProtocolError as error:
        return Refusal(str(error.code))
    except (KeyError, TypeError, ValueError, EOFError):
        return Refusal(str(ErrorCode.PAYLOAD))
