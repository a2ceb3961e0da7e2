"""Run folders as the server leaves them at any moment, written by the server's own code."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tiny_consortium import tiny_study

from common.page.serving import page_served
from common.storage.atomic_file import write_text
from common.study.study import Study
from server.page.run_view import run_page
from server.session.checkpoint import Checkpoint, RoundRecord, save_checkpoint
from server.session.run_state import RunState, SiteState

SITES = ("site-a", "site-b", "site-c")


def page_study(rounds: int = 20, **changes) -> Study:
    """A private study of three sites."""
    privacy = {"mode": "distributed", "epsilon": 8.0, "evaluation": {"release": "dp"}}
    return tiny_study(privacy=privacy, training={"rounds": rounds}, **changes)


def record(number: int, *, missing: dict[str, str] | None = None, **changes) -> RoundRecord:
    """A committed round of all sites but the missing."""
    dropped = missing or {}
    keys = {
        "round": number,
        "sites": [site for site in SITES if site not in dropped],
        "dropped": dropped,
        "update_norm": 1 / number,
        "seconds": 2.0,
    }
    return RoundRecord(**(keys | changes))


class WrittenRun:
    """A run folder that a test moves on."""

    def __init__(self, folder: Path, study: Study | None = None) -> None:
        self.folder = folder
        self.study = study or page_study()
        self.history: list[RoundRecord] = []
        write_text(folder / "study.json", self.study.model_dump_json())
        (folder / "lock").touch()
        self.state = RunState(
            run_id="tiny-0123456789ab",
            study_digest=self.study.digest(),
            code_digest="c" * 64,
            rounds=self.study.training.rounds,
        )
        self.enter()

    def enter(self, **changes) -> None:
        """Write the state with some fields changed."""
        self.state = self.state.model_copy(update=changes)
        self.state.save(self.folder)

    def enrol(self, *sites: str, **changes) -> None:
        """Let sites take part."""
        for site in sites or SITES:
            keys = {"enrolled": True, "modalities": ["clinical"], "ledger_head": "a" * 64}
            self.state = self.state.with_site(site, **(keys | changes))
        self.enter(phase="ready")

    def refuse(self, site: str, code: str | None) -> None:
        """Let a site not take part."""
        self.state = self.state.model_copy(
            update={"sites": {**self.state.sites, site: SiteState(refusal_code=code)}}
        )
        self.enter()

    def commit(self, *, missing: dict[str, str] | None = None, **changes) -> None:
        """Commit the next round, as the server does: checkpoint first, then the state."""
        number = len(self.history) + 1
        made = record(number, missing=missing, **changes)
        self.history.append(made)
        arrays = {"heads.w": np.zeros(2, np.float32)}
        checkpoint = Checkpoint(number, arrays, history=list(self.history))
        save_checkpoint(self.folder / "checkpoints", checkpoint)
        spent = 8.0 * (number / self.state.rounds) ** 0.5
        for site in made.sites:
            self.state = self.state.with_site(site, epsilon_spent=spent, last_round=number)
        self.enter(phase="round", round=number)


@contextmanager
def served_run(folder: Path, **changes):
    """Serve the coordinator's page on a free port; yields its address."""
    with page_served(run_page(folder), **changes) as url:
        yield url
