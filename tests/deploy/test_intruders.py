"""Real SuperLink, real SuperNodes, real TLS: certificates and the shipped proxy.

Who is not on the list, and all else that intruders try, is in the scene `intruders` of the
benchmark `chaos`.
"""

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from flower_processes import free_port, processes, wait_for
from joined_consortium import (
    flwr,
    join,
    make_consortium,
    make_hospital,
    start_superlink,
    start_supernode,
)

from common.errors import ConfigError, ErrorCode
from common.trust.tls_probe import probe
from server.consortium.provision_certificates import (
    issue_server_certificate,
    load_certified,
    make_authority,
)
from simulations.deployed.shipped_proxy import NGINX, shipped_proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Laboratory:
    """A consortium with a SuperLink and one registered hospital."""

    folder: Path
    start: object

    def __post_init__(self):
        self.consortium = make_consortium(self.folder)
        self.policy = make_hospital(self.folder, "a")
        self.connection = join(self.consortium, self.policy, self.folder)

    def serve(self):
        self.link = start_superlink(self.consortium, self.folder, self.start)

    def register(self):
        key = self.policy.identity_key.with_name("node.key.pub")
        done = flwr(self.folder, "supernode", "register", key, "lab", "--format", "json")
        return json.loads(done.stdout)["node-id"]

    def node(self, policy=None, **options):
        socket = self.folder / "agent.sock"
        return start_supernode(
            self.connection, policy or self.policy, self.start, socket, **options
        )

    def online(self):
        listed = flwr(self.folder, "supernode", "list", "lab", "--format", "json")
        nodes = json.loads(listed.stdout).get("nodes", [])
        return [node for node in nodes if node["status"] == "online"]


@contextmanager
def laboratory():
    with tempfile.TemporaryDirectory(prefix="tb") as name, processes(Path(name)) as start:
        yield Laboratory(Path(name), start)


def refusal(node, seconds=90):
    """Wait for a SuperNode to give up and return what it said."""
    wait_for(lambda: node.poll() is not None, seconds)
    return node.log.read_text()


def test_a_server_of_another_authority_is_refused_by_the_hospital():
    with laboratory() as lab:
        false = issue_server_certificate(make_authority("lab"), ["127.0.0.1"])
        lab.consortium.server_cert.write_bytes(false.certificate_pem())
        lab.consortium.server_key.write_bytes(false.key_pem())
        lab.serve()
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(lab.node())
        with pytest.raises(ConfigError) as caught:
            probe(lab.connection.connection().superlink, lab.connection.ca_cert)
        assert caught.value.code == ErrorCode.CERTIFICATE


def test_an_expired_certificate_is_refused_until_it_is_rotated():
    with laboratory() as lab:
        files = lab.consortium
        authority = load_certified(files.ca_cert, files.ca_key)
        expired = issue_server_certificate(authority, ["127.0.0.1"], days=0)
        shutil.copy(files.server_cert, lab.folder / "good.pem")
        shutil.copy(files.server_key, lab.folder / "good.key")
        files.server_cert.write_bytes(expired.certificate_pem())
        files.server_key.write_bytes(expired.key_pem())
        lab.serve()
        said = refusal(lab.node())
        assert "certificate has expired" in said
        lab.link.terminate()
        lab.link.wait(timeout=60)
        shutil.copy(lab.folder / "good.pem", files.server_cert)
        shutil.copy(lab.folder / "good.key", files.server_key)
        lab.serve()
        lab.register()
        lab.node()
        wait_for(lambda: len(lab.online()) == 1, 60)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_hospital_works_through_the_proxy_and_reaches_nothing_but_the_fleet():
    with laboratory() as lab:
        lab.serve()
        lab.register()
        port = free_port()
        with shipped_proxy(lab.folder, lab.consortium, port):
            lab.node(address=f"127.0.0.1:{port}")
            wait_for(lambda: len(lab.online()) == 1, 60)
            assert "/v1/fleet/activate-node" in (lab.folder / "nginx.log").read_text()
            direct = lab.consortium.consortium().listen
            config = lab.folder / "flwr" / "config.toml"
            config.write_text(config.read_text().replace(direct, f"127.0.0.1:{port}"))
            before = lab.link.log.read_text().count("/v1/control/")
            for command in (("supernode", "list", "lab"), ("ls", "lab")):
                assert flwr(lab.folder, *command).returncode != 0
            assert lab.link.log.read_text().count("/v1/control/") == before
            assert '" 403' in (lab.folder / "nginx.log").read_text()
