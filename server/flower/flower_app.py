"""Run the study that a Flower run's configuration names: Flower's server app.

Of the server's files only this one, `grid_link` and `grid_message` use Flower's public interface;
what lies behind it is in `flower_internals` alone.
"""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.commands.cli_output import Output
from common.errors import ConfigError, ErrorCode
from common.process.event_log import write_events
from common.study.study import Study
from server.flower.grid_link import GridLink, roster_keys
from server.run.rounds import run_study
from server.session.session import open_journal

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study named in the run configuration: keys `study` and `run-dir`.

    Raises:
        ConfigError: A key is missing, or the study cannot be read.
    """
    for key in ("study", "run-dir"):
        if not context.run_config.get(key):
            raise ConfigError(
                f"the run configuration lacks '{key}'",
                cure="start the run with `tumorboard server run`, which fills it in",
            )
    study = Study.from_yaml(Path(str(context.run_config["study"])))
    run_dir = Path(str(context.run_config["run-dir"]))
    write_events(run_dir / "events.jsonl")
    audit = open_journal(run_dir, str(context.run_id))

    def unproven(site_id: str, node: int, code: ErrorCode) -> None:
        audit.write("node_refused", site=site_id, code=str(code), node=str(node))

    link = GridLink(grid, roster_keys(study), report=unproven)
    run_study(study, link, run_dir, output=Output())
