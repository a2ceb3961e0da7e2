"""The bad line: counts, delays, cuts and keeps silent over real sockets."""

import socket
import threading
import time
from contextlib import suppress

import pytest

from simulations.deployed.tcp_proxy import Line, TcpProxy


@pytest.fixture
def echo():
    """Port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection):
        with connection, suppress(OSError):  # the line was cut
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def there_and_back(port, payload, timeout=10):
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        sender = threading.Thread(target=send, args=(connection, payload), daemon=True)
        sender.start()
        got = b""
        while len(got) < len(payload) and (data := connection.recv(1 << 16)):
            got += data
        sender.join()  # before its socket is closed
        return got


def send(connection, payload):
    with suppress(OSError):  # the line was cut; whoever reads sees that bytes are missing
        connection.sendall(payload)


def test_bytes_pass_unchanged_and_are_counted(echo):
    proxy = TcpProxy(echo)
    payload = bytes(range(256)) * 4096
    assert there_and_back(proxy.port, payload) == payload
    deadline = time.monotonic() + 10  # a chunk is counted just after it was passed on
    while proxy.down_bytes < len(payload) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert proxy.up_bytes == proxy.down_bytes == len(payload)
    proxy.close()


def test_delay_counts_both_ways(echo):
    proxy = TcpProxy(echo, Line(delay_s=0.15))
    started = time.monotonic()
    assert there_and_back(proxy.port, b"x") == b"x"
    assert 0.3 <= time.monotonic() - started < 2.0
    proxy.close()


def test_loss_costs_time_and_no_bytes(echo):
    payload = b"x" * 200_000
    proxy = TcpProxy(echo, Line(loss=0.05))
    started = time.monotonic()
    assert there_and_back(proxy.port, payload) == payload
    assert time.monotonic() - started >= 0.2
    proxy.close()


def answers(port):
    try:
        return there_and_back(port, b"z") == b"z"
    except OSError:
        return False


def test_cut_breaks_what_is_open_and_refuses_for_a_while(echo):
    proxy = TcpProxy(echo)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        proxy.cut(0.5)
        assert connection.recv(1) == b""
    assert not answers(proxy.port)
    time.sleep(0.6)
    assert answers(proxy.port)
    proxy.close()


def test_silence_delivers_late_and_breaks_nothing(echo):
    proxy = TcpProxy(echo)
    proxy.silence(0.5)
    started = time.monotonic()
    assert there_and_back(proxy.port, b"x") == b"x"
    assert time.monotonic() - started >= 0.5
    proxy.close()
