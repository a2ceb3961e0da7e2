"""A stop signal ends the wait whichever thread the kernel hands it to."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, threading, time
from common.process.stop_signals import stop_on_signals

stop = stop_on_signals()
assert not stop.is_set()

def interrupted():
    time.sleep(0.2)  # the main thread waits by now
    signal.pthread_kill(threading.get_ident(), int(sys.argv[1]))
    time.sleep(60)

threading.Thread(target=interrupted, daemon=True).start()
sys.exit(0 if stop.wait(20) else 3)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_that_reaches_another_thread_wakes_the_main_one(number):
    assert subprocess.run([sys.executable, "-c", SCRIPT, str(int(number))]).returncode == 0


def test_other_signals_do_not_stop():
    script = SCRIPT.replace("stop.wait(20)", "stop.wait(1)").replace(
        "def interrupted", "signal.signal(signal.SIGUSR1, lambda *_: None)\n\ndef interrupted"
    )
    number = str(int(signal.SIGUSR1))
    assert subprocess.run([sys.executable, "-c", script, number]).returncode == 3
