"""Remember which of the agent's places could not be written at the last attempt.

A full disk has no room for a note about itself, so the agent remembers in memory and reports over
gRPC health, one service a place: a fixed word and yes or no. Only the hospital's own commands know
which path the word stands for, and the relay cannot ask for it.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from common.storage.full_disk import DiskFullError
from common.study.site_policy import SitePolicy

Tell = Callable[[str, bool], None]
"""(health service, whether its place can be written)"""

_log = logging.getLogger("tumorboard.agent")


def written_places(policy: SitePolicy) -> dict[str, Path]:
    """Return health service -> folder, of all the agent writes."""
    return {
        "disk.private": policy.state.parent,
        "disk.ledger": policy.ledger.parent,
        "disk.state": policy.state,
    }


class DiskWatch:
    """Remembers full disks until a call succeeds.

    Args:
        places: Health service -> folder, the first for what is in no other.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.services = tuple(places)
        self._places = dict(places)
        self._refused: dict[str, int] = {}
        self._tell: Tell = lambda _service, _writable: None

    def report_to(self, tell: Tell) -> None:
        """Report changes from now on, and the present state at once."""
        self._tell = tell
        for service in self.services:
            tell(service, service not in self._refused)

    def refused(self, error: DiskFullError) -> None:
        """Note that a call was refused for lack of space."""
        service = self._service(error.where)
        self._refused[service] = self._refused.get(service, 0) + 1
        self._tell(service, False)

    def succeeded(self) -> None:
        """Note that a call wrote all it had to; says in the log what is over."""
        for service, calls in self._refused.items():
            place = self._places[service]
            _log.warning("%s can be written again; calls refused meanwhile: %d", place, calls)
            self._tell(service, True)
        self._refused.clear()

    def _service(self, where: str) -> str:
        path = Path(where)
        holding = [s for s, folder in self._places.items() if path.is_relative_to(folder)]
        return max(holding, key=lambda s: len(self._places[s].parts), default=self.services[0])
