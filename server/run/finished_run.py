"""Read a finished run back from its folder, without asking any site."""

from pathlib import Path
from typing import Any

from common.commands.cli_output import Output
from common.errors import ConfigError, RunError
from common.study.study import Study
from common.wire import WireMessage
from server.run.rounds import RunResult, run_study
from server.session.run_state import load_run_state
from server.session.site_link import Refusal


class NoLink:
    """A link to nobody; a finished run needs none."""

    def site_ids(self) -> tuple[str, ...]:
        """Return no site."""
        return ()

    def exchange(self, *_: Any, **__: Any) -> dict[str, WireMessage | Refusal]:
        """Return no reply."""
        return {}


def read_finished_run(run_dir: Path) -> RunResult:
    """Return the result of the run in `run_dir`.

    Raises:
        ConfigError: The folder holds no run, or its study cannot be read.
        RunError: The run is not finished.
    """
    state = load_run_state(run_dir)
    file = run_dir / "study.json"
    if state is None or not file.is_file():
        raise ConfigError(
            "there is no run in this folder", where=str(run_dir), cure="check the path"
        )
    if state.phase != "done":
        raise RunError(
            f"the run is not finished: {state.phase}, round {state.round} of {state.rounds}",
            where=str(run_dir),
            cure="continue it first",
        )
    return run_study(Study.from_yaml(file), NoLink(), run_dir, output=Output(json_mode=True))
