"""Dispatch calls at a hospital's boundary: bytes in, bytes or a stable error code out.

Whatever goes wrong inside is written in full to the hospital's own log; across the boundary
goes the code alone. Error texts may name patients, files and counts.
"""

import logging
from collections.abc import Callable

from client.agent.call_journal import NOT_NOTED, Call, CallJournal
from client.agent.socket_call import AgentRefusalError, from_frame, to_frame
from client.site.disk_watch import DiskWatch
from common.errors import ErrorCode, ProtocolError, TumorboardError
from common.protocol.protocol import METHODS, AgentApi
from common.storage.full_disk import DiskFullError, disk_full_of

_log = logging.getLogger("tumorboard.agent")


def answer(
    agent: AgentApi,
    method: str,
    header: str,
    payload: bytes,
    journal: CallJournal | None = None,
    disk: DiskWatch | None = None,
) -> tuple[str, bytes]:
    """Return the agent's reply to one encoded request.

    Args:
        agent: The agent.
        method: A key of `common.protocol.protocol.METHODS`; any other is refused.
        header: Header of the request.
        payload: Payload of the request.
        journal: Where every call is written down before its reply leaves.
        disk: Notified of every refusal for lack of space, and of every successful call.

    Raises:
        AgentRefusalError: With the stable code, and without cause or context.
    """
    call = Call(method, header, payload)
    call.code = _guarded(method, lambda: _call(agent, call), disk)
    return _noted(call, journal, disk)


def answer_frame(
    agent: AgentApi, method: str, frame: bytes, journal: CallJournal | None, disk: DiskWatch | None
) -> bytes:
    """Return the reply to a request as it stands on the socket; bytes that hold none are refused.

    Raises:
        AgentRefusalError: As `answer`; code PAYLOAD for bytes that hold no request.
    """
    try:
        header, payload = from_frame(frame)
    except ValueError:  # truncated, or not UTF-8
        unread = Call(method, "", frame, code=str(ErrorCode.PAYLOAD))
        return to_frame(*_noted(unread, journal, disk))
    return to_frame(*answer(agent, method, header, payload, journal, disk))


def _noted(call: Call, journal: CallJournal | None, disk: DiskWatch | None) -> tuple[str, bytes]:
    """Write a call down and return its reply; what could not be written down does not leave."""
    if journal is not None:
        note_error = _guarded(call.method, lambda: journal.note(call), disk)
        call.code = call.code or note_error
    if disk is not None and not call.code and call.method != NOT_NOTED:
        disk.succeeded()
    if call.code or call.encoded is None:
        raise AgentRefusalError(call.code or str(ErrorCode.INTERNAL))
    return call.encoded


def _guarded(method: str, step: Callable[[], None], disk: DiskWatch | None) -> str:
    """Run a step and return the stable code of what it raised; empty if nothing."""
    try:
        step()
    except AgentRefusalError as refusal:
        return refusal.code
    except Exception as error:
        return _code_of(error, method, disk)
    return ""


def _code_of(error: Exception, method: str, disk: DiskWatch | None) -> str:
    """Log what was raised and return its code.

    A function of its own: a second name for the error, kept where it was caught, would be a circle
    (error, traceback, frame) that holds the request's bytes in memory.
    """
    cause = disk_full_of(error) or error
    if isinstance(cause, DiskFullError) and disk is not None:
        disk.refused(cause)
    if isinstance(cause, TumorboardError):
        _log.error("%s refused\n%s", _printable(method), cause)
        return str(cause.code)
    _log.error("%s failed", _printable(method), exc_info=error)
    return str(ErrorCode.INTERNAL)


def _call(agent: AgentApi, call: Call) -> None:
    if call.method not in METHODS:
        raise ProtocolError(
            "the server asked for a call that this site does not offer", where=call.method
        )
    request_type, reply_type = METHODS[call.method]
    call.request = request_type.decode(call.header, call.payload)
    reply = getattr(agent, call.method)(call.request)
    if not isinstance(reply, reply_type):
        raise TypeError(f"{call.method} returned {type(reply).__name__}")
    call.reply, call.encoded = reply, reply.encode()


def _printable(method: str) -> str:
    return method if method in METHODS else "unknown method"
