"""Read and write a run's folder for commands: what is requested, and whether it is running."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, ErrorCode, RunError
from common.storage.atomic_file import write_text
from common.storage.file_lock import is_held
from common.study.study import Study
from common.trust.plugins import check_plugins
from common.trust.study_roster import in_words, objections
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_roster import present_roster
from server.session.run_state import STATE_FILE, RunState, load_run_state
from server.session.session import LOCK_FILE, STOP_FILE

STUDY_FILE = "study.json"
WANTED_FILE = "wanted"
FLOWER_FILE = "flower-run"

ENDED = ("done", "failed", "stopped")


@dataclass(frozen=True)
class RunFolder:
    """Typed access to a run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def study_file(self) -> Path:
        """The study as it runs."""
        return self.path / STUDY_FILE

    @property
    def is_requested(self) -> bool:
        """Whether `tumorboard server up` is to keep the run going."""
        return (self.path / WANTED_FILE).exists()

    def request_start(self) -> None:
        """Request that the run be started and kept going until it ends."""
        (self.path / STOP_FILE).unlink(missing_ok=True)
        write_text(self.path / WANTED_FILE, "")

    def cancel_request(self) -> None:
        """Cancel the request, so that nobody starts the run again."""
        (self.path / WANTED_FILE).unlink(missing_ok=True)

    def ask_to_stop(self) -> None:
        """Ask the run to stop after the round in flight."""
        self.cancel_request()
        write_text(self.path / STOP_FILE, "")

    @property
    def is_held(self) -> bool:
        """Whether a server app has the run open."""
        return is_held(self.path / LOCK_FILE)

    @property
    def changed_at(self) -> float:
        """Time the state was last written, 0 before the first."""
        state = self.path / STATE_FILE
        return state.stat().st_mtime if state.exists() else 0.0

    @property
    def flower_run(self) -> str | None:
        """Flower's id of the last start."""
        file = self.path / FLOWER_FILE
        return file.read_text(encoding="utf-8").strip() if file.is_file() else None

    def note_flower_run(self, number: str) -> None:
        """Remember Flower's id of a start."""
        write_text(self.path / FLOWER_FILE, f"{number}\n")

    def state(self) -> RunState | None:
        """Return where the run stands; None before its first start.

        Raises:
            RunError: The file is damaged.
        """
        return load_run_state(self.path)


def new_run(folder: ConsortiumFolder, study: Study) -> RunFolder:
    """Return the folder of a study's run, made if it is the first time.

    Raises:
        ConfigError: The study uses code of another distribution than is installed here (PLUGIN).
        RunError: A site is not admitted, is revoked, or has another key there (ROSTER).
    """
    check_plugins(study)
    check_roster(folder, study)
    run = RunFolder(folder.runs / f"{study.study_id}-{study.digest()[:12]}")
    if not run.study_file.exists():
        write_text(run.study_file, study.model_dump_json(indent=1))
    return run


def find_run(folder: ConsortiumFolder, name: str | None) -> RunFolder:
    """Return a run by name, or the only one, or the last one that was touched.

    Raises:
        ConfigError: There is none.
    """
    runs = all_runs(folder)
    matches = [run for run in runs if name in (None, run.name)]
    if not matches:
        raise ConfigError(
            f"there is no run '{name}'" if name else "there is no run yet",
            where=str(folder.runs),
            why=f"runs: {', '.join(run.name for run in runs) or 'none'}",
            cure="start one with `tumorboard server run`",
        )
    return max(matches, key=lambda run: run.path.stat().st_mtime)


def all_runs(folder: ConsortiumFolder) -> list[RunFolder]:
    """Return the runs of a consortium by name."""
    return [RunFolder(path.parent) for path in sorted(folder.runs.glob(f"*/{STUDY_FILE}"))]


def check_roster(folder: ConsortiumFolder, study: Study) -> None:
    """Refuse a study whose sites are not those of the consortium.

    Raises:
        RunError: With code ROSTER.
        ProtocolError: The roster is altered, or older than one seen before (ROSTER).
    """
    wrong = objections(present_roster(folder), study.sites)
    if wrong:
        raise RunError(
            "the study names sites that are not on the consortium's roster",
            where=str(folder.roster_file),
            why=in_words(wrong),
            cure="copy `sites:` from `tumorboard server roster` and freeze the study again; a run "
            "that had begun before a hospital was revoked goes on with `tumorboard server resume`",
            code=ErrorCode.ROSTER,
        )
