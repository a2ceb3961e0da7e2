"""Run a whole consortium as local processes: CA, TLS, SuperLink, hospitals, audit logs.

The topology of a real deployment, each part in its own folder with its own keys, started by the
same commands. For tests, benchmarks and for trying out; patients are SYNTHETIC.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from client.operate.site_processes import SitePaths
from client.site.approval import make_approval
from client.site.enrol_connection import SiteConnection
from client.site.enrol_install import install_kit
from client.site.enrol_request import make_keys, write_request
from client.site.site_folder import load_policy, record_consent
from common.cohort.features_h5 import FeatureFile, feature_path, write_features
from common.errors import ConfigError
from common.process.free_port import free_port
from common.process.supervisor import end_supervised, stop_supervised
from common.storage.atomic_file import write_text
from common.study.site_policy import SitePolicy
from common.study.study import RosterEntry, Study
from common.trust.connection import split_address
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import provision
from server.consortium.provision_kit import write_kit
from server.consortium.provision_roster import admit
from server.flower.bundle import bundle_digest
from server.flower.superlink import running_server, status_file
from server.operate.run_control import stop_run
from server.operate.run_folder import RunFolder, new_run
from simulations.cohorts.cohort import Cohort
from simulations.synthetic.feature_cohort import feature_consortium
from simulations.synthetic.spec import ConsortiumSpec
from simulations.synthetic.study_template import feature_study

COMMAND_S = 240.0


@dataclass(frozen=True)
class LocalConsortium:
    """A provisioned consortium on this machine.

    Attributes:
        folder: The coordinator's folder.
        sites: Site -> folder of its site.yaml.
        environment: Added to the environment of every process.
    """

    folder: ConsortiumFolder
    sites: Mapping[str, Path]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Port of the SuperLink on loopback."""
        return split_address(self.folder.consortium().listen)[1]

    def up(self) -> None:
        """Start the coordinator's processes; returns when the SuperLink serves."""
        self.command("server", "up", str(self.folder.root), "--background")

    def join(self, site_id: str) -> None:
        """Start a hospital's processes; returns when all are healthy."""
        self.command("site", "join", "--site", str(self.sites[site_id]), "--background")

    def leave(self, site_id: str) -> None:
        """End a hospital's processes."""
        self.command("site", "leave", "--site", str(self.sites[site_id]))

    def agree(self, study: Study) -> RunFolder:
        """Have every hospital consent to a study; return the folder of its run."""
        for home in self.sites.values():
            consent(home, study)
        return new_run(self.folder, study)

    def command(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Run one `tumorboard` command and return what it printed.

        Raises:
            ConfigError: It failed; `why` holds its message.
        """
        entry = "from common.commands.cli import main; main()"
        process = subprocess.run(
            [sys.executable, "-c", entry, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if process.returncode != 0:
            raise ConfigError(
                f"`tumorboard {' '.join(arguments[:2])}` failed",
                where=" ".join(arguments),
                why=(process.stderr or process.stdout).strip(),
                cure="fix what it reports",
            )
        return process.stdout

    def end(self) -> None:
        """End everything, whatever its state."""
        for home in self.sites.values():
            stop_supervised(SitePaths.of(home).status)
        if running_server(self.folder) is not None:
            stop_run(self.folder, None, now=True, must_exist=False)
            end_supervised(status_file(self.folder))


@contextmanager
def running(consortium: LocalConsortium) -> Iterator[LocalConsortium]:
    """Start coordinator and hospitals, and end them when the block ends."""
    try:
        consortium.up()
        for site_id in consortium.sites:
            consortium.join(site_id)
        yield consortium
    finally:
        consortium.end()


def make_consortium(root: Path, spec: ConsortiumSpec) -> LocalConsortium:
    """Provision a consortium below `root` and have every hospital join, with keys and kit.

    Unix sockets need a short path: keep `root` under some 50 characters.

    Raises:
        ConfigError: There is one already, or the folder cannot be written.
    """
    address = f"127.0.0.1:{free_port()}"
    folder = ConsortiumFolder.open(
        provision(root / "consortium", name="local", address=address, listen=address, sans=[])
    )
    sites = {}
    for site_id, cohort in feature_consortium(spec).by_hospital().items():
        home = sites[site_id] = root / "sites" / site_id
        write_site(home, site_id, cohort)
        policy = load_policy(home)
        make_keys(policy)
        request = root / f"{site_id}.request.json"
        write_request(policy, site_id, request)
        admit(folder, request)
        kit = root / "kits" / site_id
        connection = write_kit(folder, site_id, kit, bundle_digest=bundle_digest())
        install_kit(policy, kit, SiteConnection.of_site(home), fingerprint=connection.fingerprint)
    return LocalConsortium(folder, sites)


def local_study(consortium: LocalConsortium, spec: ConsortiumSpec, **options: Any) -> Study:
    """Return the study of the invented hospitals with their registered keys on the roster.

    Args:
        consortium: The consortium.
        spec: Its hospitals.
        options: Arguments of `feature_study`, and `quorum` and `privacy` as mappings.
    """
    changes = {name: options.pop(name, {}) for name in ("quorum", "privacy", "training")}
    study = feature_study(spec, **options)
    keys = {member.site_id: member.identity for member in consortium.folder.roster().admitted}
    body = study.model_dump(mode="json")
    for name, change in changes.items():
        body[name] |= change
    body["sites"] = [
        RosterEntry(site_id=entry.site_id, name=entry.name, public_key=keys[entry.site_id])
        for entry in study.sites
    ]
    return Study.model_validate(body)


def write_site(home: Path, site_id: str, cohort: Cohort) -> None:
    """Write one hospital: site.yaml, manifest, extracted features."""
    rules = SitePolicy(
        site_id=site_id,
        device="cpu",
        minimum_cohort=5,
        lifetime_epsilon=100.0,
        lifetime_evaluation_epsilon=100.0,
        allowed_modes=["none", "local", "distributed"],
        allow_internal_evaluation=True,
    )
    rules_json = rules.model_dump(mode="json", exclude={"approvals"}, exclude_defaults=True)
    write_text(home / "site.yaml", yaml.safe_dump({**rules_json, "site_id": site_id}))
    rows = cohort.outcomes.drop(columns="hospital").astype({"response": "Int64", "event": "Int64"})
    write_text(home / "manifest.csv", rows.to_csv(index=False))
    for name, bags in cohort.features.items():
        for patient, bag in zip(cohort.patient_ids, bags, strict=True):
            if bag is not None:
                write_features(feature_path(home / "features", name, patient), FeatureFile(bag))


def consent(home: Path, study: Study) -> None:
    """Record the consent of one hospital to a study as it stands."""
    policy = load_policy(home)
    approval = make_approval(policy, study, announced=None, epsilon=None, fallback_epsilon=None)
    record_consent(policy, approval)


def lead_to(connection: SiteConnection, address: str) -> None:
    """Have a hospital call another address (host:port) than its kit says."""
    settings = yaml.safe_load(connection.config.read_text(encoding="utf-8"))
    write_text(connection.config, yaml.safe_dump(settings | {"superlink": address}))
