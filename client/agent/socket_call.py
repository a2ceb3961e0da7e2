"""Call the site agent once over its Unix socket, with bytes.

The relay imports this file, so it imports nothing heavier than grpc.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

SERVICE = "tumorboard.SiteAgent"
MAX_FRAME_BYTES = 560 * 1024 * 1024
"""Largest header and payload of `common.wire` together."""

CALL_TIMEOUT_S = 24 * 3600.0
"""A site may train for hours; the server has its own deadline."""

PATIENCE_S = 60.0
"""How long an agent that cannot be reached, for instance while it restarts, is tried again."""

RETRY_S = 0.25
MAX_BROKEN = 3
"""How often a call that an ending agent broke off restarts the wait."""

AGENT_AWAY = "TB509"

CHUNK_BYTES = 4 * 1024 * 1024
"""A frame is sent in such parts, so that an agent need not hold eight large ones at a time."""

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", CHUNK_BYTES),
]
_LENGTH = struct.Struct(">Q")


class AgentRefusalError(Exception):
    """The agent said no, or cannot be reached; `code` is all that is known."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def to_frame(header: str, payload: bytes) -> bytes:
    """Return length of the header (8 bytes, big endian), header (UTF-8), payload."""
    header_bytes = header.encode()
    return b"".join((_LENGTH.pack(len(header_bytes)), header_bytes, payload))


def from_frame(frame: bytes) -> tuple[str, bytes]:
    """Return (header, payload).

    Raises:
        ValueError: The frame is truncated or the header is not UTF-8.
    """
    if len(frame) < _LENGTH.size:
        raise ValueError("the frame is truncated")
    end = _LENGTH.size + _LENGTH.unpack_from(frame)[0]
    if end > len(frame):
        raise ValueError("the frame is truncated")
    return frame[_LENGTH.size : end].decode(), frame[end:]


def _chunks(frame: bytes) -> Iterator[bytes]:
    view = memoryview(frame)
    return (bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(frame), CHUNK_BYTES))


def call_agent(
    socket: Path,
    method: str,
    header: str,
    payload: bytes,
    *,
    timeout_s: float = CALL_TIMEOUT_S,
    patience_s: float = PATIENCE_S,
) -> tuple[str, bytes]:
    """Return the agent's (header, payload).

    A call that an ending agent breaks off is made again: agents answer a repeated request with
    the stored reply.

    Args:
        socket: Path of the agent's Unix socket.
        method: A method of the protocol.
        header: Header of the request.
        payload: Payload of the request.
        timeout_s: Seconds to wait for an answer at most.
        patience_s: Seconds to try at most while there is no agent.

    Raises:
        AgentRefusalError: With the agent's stable code, TB509 if it cannot be reached, or TB900.
    """
    frame = to_frame(header, payload)
    end = time.monotonic() + patience_s
    breaks = 0
    while True:
        start_time = time.monotonic()
        with grpc.insecure_channel(f"unix:{socket}", options=CHANNEL_OPTIONS) as channel:
            try:
                call = channel.stream_unary(f"/{SERVICE}/{method}")
                return from_frame(call(_chunks(frame), timeout_s))
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            raise AgentRefusalError(details or "TB900")
        if code != grpc.StatusCode.UNAVAILABLE:
            raise AgentRefusalError("TB900")
        if time.monotonic() - start_time > RETRY_S and breaks < MAX_BROKEN:
            breaks += 1  # it was there, and ended meanwhile
            end = max(end, time.monotonic() + patience_s)
        if time.monotonic() >= end:
            raise AgentRefusalError(AGENT_AWAY)
        time.sleep(RETRY_S)
