"""The boundary of a hospital: bytes in, bytes or a stable code out, nothing else.

Whatever goes wrong inside is written in full to the hospital's own log; across the boundary
goes the code alone. Error texts may name patients, files and counts.
"""

from __future__ import annotations

import logging

from client.agent.socket_call import AgentRefusalError
from common.errors import ErrorCode, ProtocolError, TumorboardError
from common.protocol import METHODS, AgentApi

_log = logging.getLogger("tumorboard.agent")


def answer(agent: AgentApi, method: str, header: str, payload: bytes) -> tuple[str, bytes]:
    """Return the agent's reply to one encoded request.

    Args:
        agent: The agent.
        method: A key of `common.protocol.METHODS`; any other is refused.
        header: Header of the request.
        payload: Payload of the request.

    Raises:
        AgentRefusalError: With the stable code, and without cause or context.
    """
    try:
        return _call(agent, method, header, payload)
    except TumorboardError as error:
        _log.error("%s refused\n%s", _printable(method), error)
        code = str(error.code)
    except AgentRefusalError as refusal:
        code = refusal.code
    except Exception:
        _log.exception("%s failed", _printable(method))
        code = str(ErrorCode.INTERNAL)
    raise AgentRefusalError(code)


def _call(agent: AgentApi, method: str, header: str, payload: bytes) -> tuple[str, bytes]:
    if method not in METHODS:
        raise ProtocolError("the server asks for something this site does not do", where=method)
    request_type, reply_type = METHODS[method]
    reply = getattr(agent, method)(request_type.decode(header, payload))
    if not isinstance(reply, reply_type):
        raise TypeError(f"{method} returned {type(reply).__name__}")
    return reply.encode()


def _printable(method: str) -> str:
    return method if method in METHODS else "unknown method"
