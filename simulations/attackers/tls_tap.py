"""Act as a malicious proxy: it holds the server's key, reads what hospitals send, and keeps it."""

import asyncio
import socket
import ssl
import threading
from collections import deque
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

from server.consortium.consortium_folder import ConsortiumFolder

CHUNK = 1 << 16
KEPT = 400
LOOPBACK = "127.0.0.1"


class TlsTap:
    """Ends TLS with the consortium's own certificate, and connects onward to the SuperLink.

    Args:
        folder: The coordinator's folder.
        port: Port of the SuperLink.
    """

    def __init__(self, folder: ConsortiumFolder, port: int) -> None:
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.load_cert_chain(folder.server_cert, folder.server_key)
        self._client = ssl.create_default_context(cafile=str(folder.ca_cert))
        self._target = port
        self._requests: deque[bytes] = deque(maxlen=KEPT)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        listening = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, LOOPBACK, 0, ssl=self._server), self._loop
        )
        self._listener = listening.result(timeout=20)
        self.port = int(self._listener.sockets[0].getsockname()[1])

    def requests(self, path: str) -> list[bytes]:
        """Return the whole requests to a path that were read so far, oldest first."""
        start = f"POST {path} ".encode()
        return [request for request in list(self._requests) if request.startswith(start)]

    def close(self) -> None:
        """End the tap."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        self._listener.close()
        own = asyncio.current_task()
        for task in [task for task in asyncio.all_tasks() if task is not own]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection(LOOPBACK, self._target, ssl=self._client)
        except OSError:
            writer.close()
            return
        answers = asyncio.create_task(_pump(far[0], writer))
        try:
            while True:
                request = await _one_request(reader)
                self._requests.append(request)
                far[1].write(request)
                await far[1].drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass  # one side has ended the connection, or the tap ends
        finally:
            answers.cancel()
            for end in (writer, far[1]):
                end.close()


async def _one_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    return head + await reader.readexactly(size)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()


def with_other_request(captured: bytes, path: str, body: bytes) -> bytes:
    """Return another request behind the signed headers of a captured one."""
    head = captured.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    headers = [line for line in head if not line.lower().startswith(b"content-length:")]
    first = b"POST %s HTTP/1.1" % path.encode()
    return b"\r\n".join([first, *headers, b"content-length: %d" % len(body), b"", body])


def send_raw(port: int, authority: Path, request: bytes, *, source: str) -> tuple[int, str]:
    """Send bytes to a TLS port of loopback from another address of it.

    Returns:
        HTTP status and body of the answer.
    """
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((LOOPBACK, port), 30, source_address=(source, 0)) as raw,
        context.wrap_socket(raw, server_hostname=LOOPBACK) as line,
    ):
        line.sendall(request)
        answer = HTTPResponse(line)
        answer.begin()
        return answer.status, answer.read().decode("utf-8", "replace")
