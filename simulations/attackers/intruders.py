"""Run every intruder against a consortium during a study."""

from collections.abc import Iterator
from contextlib import contextmanager

from common.study.study import Study
from server.operate.run_folder import RunFolder
from simulations.attackers.attempts import Attempt
from simulations.attackers.bad_calls import interfaces, replays
from simulations.attackers.bad_keys import expired, strangers
from simulations.attackers.bad_messages import altered_rosters, bad_bundles
from simulations.attackers.chaos_scenes import Stage
from simulations.attackers.tls_tap import TlsTap


def all_attempts(
    stage: Stage, run: RunFolder, private: Study, tap: TlsTap, tapped: str
) -> Iterator[Attempt]:
    """Yield every attempt, one after the other.

    Args:
        stage: The consortium.
        run: The run under way.
        private: A study that hospitals have approved and nobody runs.
        tap: A proxy gone bad.
        tapped: The hospital whose line goes through it.
    """
    yield from bad_bundles(stage, run, private)
    yield from replays(stage, tap, tapped)
    yield from interfaces(stage)
    yield from strangers(stage)
    yield from expired(stage)
    yield from altered_rosters(stage)


@contextmanager
def tapped_line(stage: Stage, site_id: str) -> Iterator[TlsTap]:
    """Lead a hospital's line through a proxy gone bad while the block runs."""
    port = stage.consortium.port
    tap = TlsTap(stage.consortium.folder, port)
    stage.lines[site_id].redirect(tap.port)
    try:
        yield tap
    finally:
        stage.lines[site_id].redirect(port)
        tap.close()


@contextmanager
def slow_lines(stage: Stage, delay_s: float) -> Iterator[None]:
    """Make every line slow while the block runs."""
    for line in stage.lines.values():
        line.line.delay_s = delay_s
    try:
        yield
    finally:
        for line in stage.lines.values():
            line.line.delay_s = 0.0
