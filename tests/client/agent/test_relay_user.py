"""The relay under another operating-system user: all it can do at will, and all it cannot read."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from flower_processes import processes, wait_for
from small_site import site_study, write_small_site

from client.agent.log_files import audit_path
from client.agent.service import is_healthy
from client.site.identity import create_identity
from client.site.site_folder import load_policy
from common.contract import canonical_json
from common.ledger.ledger_file import read_ledger
from common.protocol.protocol import METHODS
from common.trust.audit_log import read_audit
from common.trust.provenance import code_digest

RELAY_UID, GROUP = 65534, 61234
WITHOUT_A_RUN = {"handshake", "status"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

HOSTILE = """
import json, os, sys
from pathlib import Path
import grpc
from client.agent.socket_call import AgentRefusalError, call_agent
from common.protocol.protocol import METHODS

with grpc.insecure_channel("unix:/nowhere") as channel:
    try:
        channel.unary_unary("/x/y")(b"", timeout=0.2)  # whatever is imported at the first call
    except grpc.RpcError:
        pass
os.setgroups([])
os.setgid(int(sys.argv[7]))
os.setuid(int(sys.argv[6]))  # after the imports: a test's Python may lie in root's home
folder, socket, study, digest, code = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6]
read = []
for path in ("private", "private/identity.key", "private/split.key", "private/ledger.jsonl"):
    try:
        (folder / path).read_bytes() if (folder / path).suffix else list((folder / path).iterdir())
        read.append(path)
    except OSError:
        pass
tensors = b"\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00{}"
run = {"run_id": "run-1"}
told = run | {"study_json": study, "study_digest": digest, "code_digest": code}
asked = run | {"round": 1, "model_digest": "ab" * 32}
headers = {
    "handshake": [told, told | {"code_digest": "ab" * 32}, told | {"study_digest": "ab" * 32}],
    "train": [asked, asked | {"round": -1}],
    "evaluate": [asked, asked | {"release": "internal"}, asked | {"label": "../../x"}],
    "status": [{}, run],
    "unmask": [run | {"round": 1}],
    "shell": [{}],
}
headers |= {method: [{}, run] for method in METHODS if method not in headers}
answers = {}
for method, tries in headers.items():
    for header in [*tries, "{", ""]:
        text = header if isinstance(header, str) else json.dumps(header)
        try:
            reply = call_agent(socket, method, text, tensors, timeout_s=60)[0]
        except AgentRefusalError as refusal:
            reply = refusal.code
        answers.setdefault(method, []).append(reply)
print(json.dumps({"read": read, "answers": answers}))
"""


def test_whatever_the_relay_asks_nothing_is_released_that_was_not_approved():
    with tempfile.TemporaryDirectory(prefix="tb") as name, processes(Path(name)) as start:
        folder = Path(name)
        folder.chmod(0o711)
        write_small_site(folder / "site")
        policy = load_policy(folder / "site")
        create_identity(policy.identity_key)
        run = folder / "run"
        run.mkdir()
        os.chown(run, 0, GROUP)
        run.chmod(0o2750)
        socket = run / "agent.sock"
        entry = "from common.commands.cli import main; main()"
        command = [sys.executable, "-c", entry, "site", "agent", "--site", folder / "site"]
        start(*command, "--socket", socket, "--share")
        wait_for(lambda: is_healthy(socket), 60)
        study = site_study()
        text = canonical_json(study.model_dump(mode="json"))
        hostile = [HOSTILE, folder / "site", socket, text, study.digest(), code_digest()]
        told = as_relay(*hostile)
        assert told["read"] == []
        answers = told["answers"]
        assert set(METHODS) | {"shell"} == set(answers)
        refusals = [json.loads(reply)["refusal_code"] for reply in answers["handshake"][:3]]
        assert refusals == ["TB503", "TB502", "TB501"]
        for method in set(answers) - WITHOUT_A_RUN:
            assert all(re.fullmatch(r"TB\d{3}", reply) for reply in answers[method]), method
        assert {line.kind for line in read_ledger(policy.ledger)} == {"genesis"}
        noted = [line.facts["method"] for line in read_audit(audit_path(policy)) if line.code]
        for method in METHODS:  # calls of no method of the protocol end in gRPC itself
            failed = method == "handshake"  # which says no in a reply
            refused = [reply for reply in answers[method] if failed or not reply.startswith("{")]
            assert noted.count(method) == len(refused)


def as_relay(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments), str(RELAY_UID), str(GROUP)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
