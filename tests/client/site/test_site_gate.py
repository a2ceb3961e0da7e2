"""The site gate: on bundles of Flower's own builder, and on a real SuperNode."""

import io
import json
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
from flower_processes import processes, wait_for
from flwr.cli.build import build_fab_from_files
from joined_consortium import (
    flwr,
    join,
    make_consortium,
    make_hospital,
    start_superlink,
    start_supernode,
)

from client.agent.service import serving
from client.operate.site_processes import list_site_processes
from client.site.site_gate import GATED, BundleRefusedError, check_bundle, read_allowed
from common.contract import sha256_hex
from common.process.deploy_files import deploy_file
from common.protocol.protocol import StatusReply
from server.flower.bundle import FOLDER, build_bundle, bundle_digest

MANIFEST = (deploy_file(FOLDER) / "pyproject.toml").read_text()
PROBE = MANIFEST.replace("server.flower.flower_app:app", "gate_probe_app:app").replace(
    'study = ""', 'out = ""'
)
SHADOW = """
from pathlib import Path
Path({marker!r}).write_text("code of the bundle ran")
from flwr.clientapp import ClientApp
app = ClientApp()
"""


def bundle(manifest=MANIFEST, **files):
    """Bytes of a bundle as `flwr run` makes them; keyword `a__b` is the file a/b.py."""
    content = {f"{name.replace('__', '/')}.py": text.encode() for name, text in files.items()}
    return build_fab_from_files({"pyproject.toml": manifest.encode(), **content})[0]


def test_our_own_bundle_passes_and_its_digest_is_reproducible():
    assert sha256_hex(build_bundle()) == bundle_digest()
    assert len(build_bundle()) < 2048
    check_bundle(build_bundle(), frozenset({bundle_digest()}))


def rezipped(**files):
    """Our bundle with further files, which Flower's builder would leave out."""
    out = io.BytesIO(build_bundle())
    with zipfile.ZipFile(out, "a") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return out.getvalue()


def zipped(manifest, content, compression):
    """A bundle by hand."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("pyproject.toml", manifest)
        archive.writestr(".info/CONTENT", content)
    return out.getvalue()


BAD = {
    "code": bundle(client__flower__flower_app="app = None"),
    "pth": rezipped(start__pth="import os"),
    "library": rezipped(x__so="\x7fELF"),
    "any other file": rezipped(data__txt="x"),
    "twice": rezipped(pyproject__toml=MANIFEST),
    "other app": bundle(MANIFEST.replace("client.flower.flower_app:app", "os:system")),
    "truncated": build_bundle()[:-30],
    "nothing": b"",
    "huge": zipped(MANIFEST, "0" * (1 << 21), zipfile.ZIP_STORED),
    "huge once unpacked": zipped(MANIFEST + "#" * (1 << 21), "", zipfile.ZIP_DEFLATED),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_bundle_is_refused_even_if_its_digest_is_allowed(kind):
    with pytest.raises(BundleRefusedError) as caught:
        check_bundle(BAD[kind], frozenset({sha256_hex(BAD[kind])}))
    assert str(caught.value) == "TB507"


def test_a_digest_that_is_not_allowed_is_refused(tmp_path):
    with pytest.raises(BundleRefusedError, match="TB507"):
        check_bundle(build_bundle(), read_allowed(tmp_path / "missing"))


def test_nothing_of_a_bundle_is_parsed_before_its_digest_is_known(monkeypatch):
    def parsed(*_):
        raise RecursionError

    monkeypatch.setattr("client.site.site_gate.tomllib.loads", parsed)
    with pytest.raises(BundleRefusedError) as caught:
        check_bundle(build_bundle(), frozenset({"0" * 64}))
    assert "is not allowed here" in caught.value.reason


@pytest.mark.parametrize("name", GATED)
def test_no_program_of_flower_starts_at_a_hospital(tmp_path, name):
    connection = join(make_consortium(tmp_path), make_hospital(tmp_path, "a"), tmp_path)
    done = subprocess.run([connection.gate / name], capture_output=True, text=True, check=False)
    assert done.returncode == 126
    assert f"refused to start {name}" in done.stderr


class Agent:
    """Answers status only."""

    def status(self, request):
        return StatusReply(site_id="a", state="idle")


def run_probe(folder, app, out):
    done = flwr(folder, "run", app, "lab", "--run-config", f'out="{out}"')
    assert done.returncode == 0, done.stderr + done.stdout
    wait_for(out.exists, 240)
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_supernode_relays_the_allowed_bundle_and_starts_no_code_of_the_server():
    with tempfile.TemporaryDirectory(prefix="tb") as name, processes(Path(name)) as start:
        folder = Path(name)
        consortium, policy = make_consortium(folder), make_hospital(folder, "a")
        connection = join(consortium, policy, folder)
        socket, marker = folder / "run" / "agent.sock", folder / "marker"
        good, bad, other = folder / "good", folder / "bad", folder / "other"
        for app, manifest in ((good, PROBE), (bad, PROBE), (other, PROBE + "\n[tool.x]\n")):
            (app / "client" / "flower").mkdir(parents=True)
            (app / "pyproject.toml").write_text(manifest)
        (bad / "client" / "__init__.py").touch()
        (bad / "client" / "flower" / "__init__.py").touch()
        (bad / "client" / "flower" / "flower_app.py").write_text(SHADOW.format(marker=str(marker)))
        allowed = sha256_hex(bundle(PROBE))
        connection.allowed_bundles.write_text(allowed + "\n")
        start_superlink(consortium, folder, start)
        registered = flwr(
            folder, "supernode", "register", policy.identity_key.with_name("node.key.pub"), "lab"
        )
        assert registered.returncode == 0, registered.stderr
        with serving(Agent(), socket):
            node, relay = (
                start(*child.command)
                for child in list_site_processes(folder / "a", socket=socket, agent=False)[0]
            )
            assert "header" in run_probe(folder, good, folder / "out-good")
            assert run_probe(folder, bad, folder / "out-bad") == {"code": "TB507"}
            assert run_probe(folder, other, folder / "out-other") == {"code": "TB507"}
            log = relay.log.read_text()
            assert log.count("bundle refused (TB507): its digest") == 2  # before either is read
            end(relay, node)
            node = start_supernode(connection, policy, start, socket)
            assert flwr(folder, "run", bad, "lab").returncode == 0
            wait_for(lambda: "refused to start flwr-clientapp" in node.log.read_text(), 120)
            end(node)
            assert not marker.exists()
            start_supernode(connection, policy, start, socket, gated=False)
            run_probe(folder, bad, folder / "out-ungated")
            assert marker.exists()  # relay and gate, and nothing else, had kept it out


def end(*running):
    for process in running:
        process.terminate()
        process.wait(timeout=30)
