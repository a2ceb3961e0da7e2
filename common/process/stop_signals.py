"""Turn SIGTERM and SIGINT into an event that the main thread may wait for."""

import signal
import socket
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; to be called in the main thread.

    A handler that sets the event itself is not enough: Python runs handlers in the main thread
    only, and a main thread that waits for a lock is not woken when the kernel hands the signal to
    another thread. The interpreter writes to its wakeup socket whichever thread was interrupted,
    so a thread listens there.
    """
    stop = threading.Event()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    # The thread holds both ends: a collected sender would close the wakeup socket.
    listener = (stop, receiver, sender)
    threading.Thread(target=_listen, args=listener, name="stop-signals", daemon=True).start()
    return stop


def _listen(stop: threading.Event, receiver: socket.socket, _sender: socket.socket) -> None:
    while True:
        if set(receiver.recv(64)) & set(STOP_SIGNALS):
            stop.set()
