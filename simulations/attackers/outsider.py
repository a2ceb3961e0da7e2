"""Act as a hospital outside the consortium: with a copied kit, and keys of its own."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.operate.site_processes import SitePaths, list_site_processes
from client.site.enrol_connection import SiteConnection
from client.site.enrol_request import make_keys, write_request
from client.site.site_folder import load_policy
from client.site.site_template import write_site_template
from common.errors import RunError
from common.process.supervisor import end_process, start_child
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision_roster import admit
from simulations.consortium.local_consortium import lead_to

KNOCK_S = 90.0
END_S = 5.0


@dataclass(frozen=True)
class Outsider:
    """A hospital on disk.

    Attributes:
        home: Folder of its `site.yaml`.
    """

    home: Path

    @classmethod
    def make(cls, home: Path, kit: SiteConnection, superlink: str) -> "Outsider":
        """Make its keys, and copy the installed kit of another hospital.

        Args:
            home: Its folder; the last part is its name.
            kit: What it copies.
            superlink: host:port it calls.
        """
        write_site_template(home, home.name)
        make_keys(load_policy(home))
        own = SiteConnection.of_site(home)
        shutil.copytree(kit.root, own.root)
        lead_to(own, superlink)
        return cls(home)

    @property
    def connection(self) -> SiteConnection:
        """Its copied kit."""
        return SiteConnection.of_site(self.home)

    @property
    def log(self) -> Path:
        """Log of its SuperNode."""
        return SitePaths.of(self.home).log / "supernode.log"

    def be_admitted(self, folder: ConsortiumFolder) -> None:
        """Ask to join, and be admitted by the coordinator."""
        request = self.home.with_name(f"{self.home.name}.request.json")
        write_request(load_policy(self.home), "", request)
        admit(folder, request)

    @contextmanager
    def supernode(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run its SuperNode, as `tumorboard site join` would, while the block runs."""
        children, _ = list_site_processes(self.home, agent=False)
        child = next(c for c in children if c.name == "supernode")
        running = start_child(child)
        try:
            yield running
        finally:
            end_process(running, END_S)

    def knock(self) -> str:
        """Run its SuperNode until it gives up; return what its log says."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.supernode() as running:
            wait_for_exit(running)
        return self.log.read_bytes()[before:].decode("utf-8", "replace")


def wait_for_exit(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process gives up.

    Raises:
        RunError: It does not.
    """
    deadline = time.monotonic() + KNOCK_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise RunError("a SuperNode without rights did not give up")
        time.sleep(0.1)
