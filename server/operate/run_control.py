"""Control a run for the coordinator: request its start, follow it, stop it."""

import time
from pathlib import Path

from common.commands.cli_output import Output, Progress
from common.errors import ConfigError, ErrorCode, RunError
from common.study.study import Study
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import stop_run as stop_flower_run
from server.flower.superlink import running_server, status_file
from server.operate.run_folder import ENDED, RunFolder, find_run
from server.report.build import build_report
from server.report.content import make_content
from server.run.finished_run import read_finished_run
from server.session.run_state import RunState

LOOK_S = 0.3
STOP_MARGIN_S = 120.0
SERVER_GONE_S = 120.0
"""How long a follower bears that the server is down."""


CONTINUE = "fix the cause, then `tumorboard server resume`"
OTHER_CODE = (
    "install the version that started it, or move this folder away and run the study again; what "
    "hospitals spent on it stays spent"
)


def request_run(folder: ConsortiumFolder, run: RunFolder) -> None:
    """Have the server start a run, or continue it, and keep it going.

    Raises:
        ConfigError: The server is not up.
    """
    if running_server(folder) is None:
        raise ConfigError(
            "the server is not up",
            where=str(status_file(folder)),
            cure=f"start it first: `tumorboard server up {folder.root}`",
        )
    state = run.state()
    if state is None or state.phase != "done":
        run.request_start()


def follow_run(run: RunFolder, output: Output) -> Path:
    """Show a run's progress until it ends; return its report page.

    Raises:
        RunError: The run failed or was stopped, with the run's own reason and code; or the
            server has been down for two minutes (TRANSPORT).
    """
    rounds = Study.from_yaml(run.study_file).training.rounds
    with output.progress(rounds, "rounds") as progress:
        state = _until_ended(run, progress)
    if state.phase != "done":
        code, _, what = (state.reason or "").partition(": ")
        raise RunError(
            f"the run {'was stopped' if state.phase == 'stopped' else 'failed'}: {what}",
            where=str(run.path),
            cure=OTHER_CODE if code == ErrorCode.CODE_DIGEST else CONTINUE,
            code=ErrorCode(code) if code in set(ErrorCode) else None,
        )
    page, _ = build_report(make_content(read_finished_run(run.path)), run.path)
    return page.resolve()


def stop_run(
    folder: ConsortiumFolder, name: str | None, *, now: bool, must_exist: bool
) -> RunFolder | None:
    """Stop a run and return it; None if there is none and none must exist.

    Raises:
        ConfigError: There is none.
        RunError: It did not stop within a round's time.
    """
    try:
        run = find_run(folder, name)
    except ConfigError:
        if must_exist:
            raise
        return None
    state = run.state()
    if state is not None and state.phase in ENDED and not run.is_held:
        run.cancel_request()
        return run
    run.ask_to_stop()
    if now and run.is_held and run.flower_run is not None:
        stop_flower_run(folder, run.flower_run)
    patience_s = Study.from_yaml(run.study_file).quorum.round_timeout_s + STOP_MARGIN_S
    deadline = time.monotonic() + patience_s
    while run.is_held:
        if time.monotonic() > deadline:
            raise RunError(
                "the run has not stopped",
                where=str(run.path),
                why=f"its round is still open after {patience_s:.0f} s",
                cure="`tumorboard server stop --now`",
            )
        time.sleep(LOOK_S)
    state = run.state()
    if state is not None and state.phase not in ENDED:
        reason = f"{ErrorCode.STOPPED}: the coordinator stopped the run"
        state.model_copy(update={"phase": "stopped", "reason": reason}).save(run.path)
    return run


def _until_ended(run: RunFolder, progress: Progress) -> RunState:
    folder = ConsortiumFolder(run.path.parent.parent)
    last_round: int | None = None  # rounds, once the first state was seen
    seen_up = time.monotonic()
    while True:
        state = run.state()
        if state is not None:
            if last_round is None:
                progress.skip(state.round, state.phase)
            elif state.round > last_round:
                progress.advance(state.round - last_round, state.phase)
            last_round = state.round
            if state.phase in ENDED and not run.is_requested:
                return state
        now = time.monotonic()
        seen_up = now if running_server(folder) is not None else seen_up
        if now - seen_up > SERVER_GONE_S:
            raise RunError(
                "the server has ended",
                where=str(status_file(folder)),
                why=f"it has been down for {SERVER_GONE_S:.0f} s",
                cure="`tumorboard server up`: the run goes on by itself",
                code=ErrorCode.TRANSPORT,
            )
        time.sleep(LOOK_S)
