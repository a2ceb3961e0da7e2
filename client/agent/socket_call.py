"""One call to the site agent over its Unix socket, as bytes.

The relay imports this file, so it imports nothing heavier than grpc.
"""

from __future__ import annotations

import struct
from pathlib import Path

import grpc

SERVICE = "tumorboard.SiteAgent"
MAX_FRAME_BYTES = 560 * 1024 * 1024
"""Largest header and payload of `common.wire` together."""

CALL_TIMEOUT_S = 24 * 3600.0
"""A site may train for hours; the server has its own deadline."""

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
]
_LENGTH = struct.Struct(">Q")


class AgentRefusalError(Exception):
    """The agent said no, or cannot be reached; `code` is all that is known."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def to_frame(header: str, payload: bytes) -> bytes:
    """Return length of the header (8 bytes, big endian), header (UTF-8), payload."""
    encoded = header.encode()
    return b"".join((_LENGTH.pack(len(encoded)), encoded, payload))


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


def call_agent(
    socket: Path, method: str, header: str, payload: bytes, *, timeout_s: float = CALL_TIMEOUT_S
) -> tuple[str, bytes]:
    """Return the agent's (header, payload).

    Args:
        socket: Path of the agent's Unix socket.
        method: A method of the protocol.
        header: Header of the request.
        payload: Payload of the request.
        timeout_s: Seconds to wait at most.

    Raises:
        AgentRefusalError: With the agent's stable code, or TB900 if it cannot be reached.
    """
    with grpc.insecure_channel(f"unix:{socket}", options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            return from_frame(call(to_frame(header, payload), timeout=timeout_s))
        except grpc.RpcError as error:
            told = error.details() if error.code() == grpc.StatusCode.FAILED_PRECONDITION else None
            raise AgentRefusalError(told or "TB900") from None
