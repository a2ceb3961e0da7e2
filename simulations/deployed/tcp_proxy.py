"""TCP proxy on loopback that counts bytes and simulates a bad line: delay, loss, cuts, silence.

Loss shows in a TCP stream as a pause until the packet is sent again; that is what is made here,
with the shortest retransmission time-out of Linux.
"""

import random
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 1 << 16
PACKET = 1400
RETRANSMIT_S = 0.2


@dataclass
class Line:
    """What the line does to bytes; may be changed while it runs.

    Attributes:
        delay_s: One-way delay.
        loss: Probability that a packet is lost.
        bytes_per_s: Bandwidth; None for no limit.
    """

    delay_s: float = 0.0
    loss: float = 0.0
    bytes_per_s: float | None = None


class TcpProxy:
    """Forwards connections to a port of this machine.

    Args:
        port: Where connections go.
        line: What is done to them.
        seed: Seed of the losses.
    """

    def __init__(self, port: int, line: Line | None = None, *, seed: int = 1) -> None:
        self._target = port
        self.line = line or Line()
        self.up_bytes = self.down_bytes = 0
        self._random = random.Random(seed)
        self._open: set[socket.socket] = set()
        self._closed_until = 0.0
        self._silent_until = 0.0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Break all connections and refuse new ones for some seconds."""
        self._closed_until = time.monotonic() + seconds
        self._drop_all()

    def silence(self, seconds: float) -> None:
        """Deliver nothing for some seconds, without breaking any connection."""
        self._silent_until = time.monotonic() + seconds

    def redirect(self, port: int) -> None:
        """Break all connections and let new ones go to another port of this machine."""
        self._target = port
        self._drop_all()

    def close(self) -> None:
        """End the proxy."""
        self._listener.close()
        self._drop_all()

    def _drop_all(self) -> None:
        with self._lock:
            connections, self._open = self._open, set()
        for end in connections:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._closed_until:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = threading.Condition()
        sender = threading.Thread(
            target=self._deliver, args=(waiting, arrived, sink, up), daemon=True
        )
        sender.start()
        while True:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            with arrived:
                waiting.append((time.monotonic() + self._pause(len(data)), data))
                arrived.notify()
            if not data:
                return

    def _pause(self, size: int) -> float:
        packets = -(-size // PACKET)
        chance = (1 - self.line.loss) ** packets
        delay = RETRANSMIT_S if self._random.random() > chance else 0.0
        return self.line.delay_s + delay

    def _deliver(
        self,
        waiting: deque[tuple[float, bytes]],
        arrived: threading.Condition,
        sink: socket.socket,
        up: bool,
    ) -> None:
        while True:
            with arrived:
                while not waiting:
                    arrived.wait()
                due, data = waiting.popleft()
            slow = len(data) / self.line.bytes_per_s if self.line.bytes_per_s else 0.0
            time.sleep(max(0.0, max(due, self._silent_until) + slow - time.monotonic()))
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                return
            if up:
                self.up_bytes += len(data)
            else:
                self.down_bytes += len(data)
