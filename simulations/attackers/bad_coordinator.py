"""Act as a malicious coordinator that starts a Flower run of its own at the hospitals.

It holds everything the coordinator holds, so its messages come over the real link, signed by
nobody but the line. What stops it is installed at the hospitals: the relay, which looks at the
bundle, and the agent.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import (
    METHODS,
    EvaluateRequest,
    HandshakeReply,
    TrainRequest,
)
from common.secure_sum.messages import AdvertiseRequest
from common.storage.atomic_file import write_text
from common.study.study import Study
from common.trust.roster import SignedRoster
from common.wire import Arrays, WireMessage, arrays_digest
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import start_run
from server.flower.flower_internals import build_bundle
from server.flower.grid_message import pack, read_reply
from server.session.site_link import Refusal
from simulations.attackers.forged import forged_handshakes, handshake, newer
from simulations.deployed.bench_run import bench_bundle, wait_until

LIMIT_S = 90.0
SILENT, ANSWERED = "silent", "answered"
OPTIONS = ("study", "private", "roster", "run", "nodes", "out")
CODE = """\
from pathlib import Path
Path({marker!r}).write_text("code of the bundle ran")
from flwr.clientapp import ClientApp
app = ClientApp()
"""

app = ServerApp()
Wave = dict[str, tuple[str, str, bytes]]
"""Name -> method, header, payload."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Make every demand and write down what each node said; keys as in the bundle.

    Without the name of a run there are handshakes only.
    """
    config = {name: str(value) for name, value in context.run_config.items()}
    running = Study.from_yaml(Path(config["study"]))
    private = Study.from_yaml(Path(config["private"]))
    nodes = [int(node) for node in config["nodes"].split(",")]
    signed = SignedRoster.model_validate_json(Path(config["roster"]).read_text(encoding="utf-8"))
    answers = _ask(grid, nodes, handshakes(running, private, signed))
    if config["run"]:
        answers |= _ask(grid, nodes, demands(running, private, config["run"]))
    write_text(Path(config["out"]), json.dumps(answers))


def handshakes(running: Study, private: Study, signed: SignedRoster) -> Wave:
    """Return forged handshakes, and one that opens a run of an approved study."""
    looser = running.model_copy(
        update={"training": running.training.model_copy(update={"rounds": 10_000})}
    )
    requests = {
        "roster altered on the line": handshake(
            running, "forged-5", roster_json=newer(signed).text()
        ),
        **forged_handshakes(running, looser, private),
        "a run of an approved study": handshake(private, "stolen"),
    }
    return {what: _encoded("handshake", request) for what, request in requests.items()}


def demands(running: Study, private: Study, run: str) -> Wave:
    """Return what is requested in the run under way, and in the stolen one."""
    arrays = to_arrays(build_model(running))
    secret = to_arrays(build_model(private))
    shifted_arrays = {name: array + np.float32(0.5) for name, array in secret.items()}
    nan_arrays = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    exact = {"label": "x", "release": "internal", "round": 1, "run_id": "stolen"}
    evaluate = EvaluateRequest(**exact, model_digest=arrays_digest(secret))
    wave = {
        "query that does not exist": ("predict", "{}", b""),
        "query for the shell": ("shell", '{"command": "id"}', b""),
        "run nobody opened": _train("never-opened", 1, arrays),
        "round beyond the plan": _train(run, running.training.rounds + 1, arrays),
        "model that is not its digest's": _train(run, 1, arrays, digest="ab" * 32),
        "model of NaN": _train(run, 1, nan_arrays),
        "truncated message": _cut(_train(run, 1, arrays)),
        "keys for another study": _encoded(
            "advertise_keys", AdvertiseRequest(run_id=run, session=1, study_digest="cd" * 32)
        ),
        "first round, private study": _train("stolen", 1, secret),
        "first round again": _train("stolen", 1, secret),
        "first round, other model": _train("stolen", 1, shifted_arrays),
    }
    if private.privacy.evaluation.release != "internal":
        evaluate = evaluate.model_copy(update={"arrays": secret})
        wave["exact tables"] = _encoded("evaluate", evaluate)
    return wave


def write_bundle(folder: Path, marker: Path | None) -> Path:
    """Write its bundle; with a marker it holds code that would write that file."""
    server, client = "simulations.attackers.bad_coordinator:app", "client.flower.flower_app:app"
    bundle = bench_bundle(folder, server, client, options=OPTIONS)
    if marker is not None:
        write_text(bundle / "client" / "__init__.py", "")
        write_text(bundle / "client" / "flower" / "__init__.py", "")
        write_text(bundle / "client" / "flower" / "flower_app.py", CODE.format(marker=str(marker)))
    return bundle


def run_bad(
    folder: ConsortiumFolder, bundle: Path, config: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Start a bundle with the coordinator's own means; return name -> node -> what came back.

    Raises:
        RunError: It was not started, or did not end in time.
    """
    out = bundle.with_suffix(".json")
    start_run(folder, {**config, "out": str(out)}, bundle=build_bundle(bundle))
    wait_until(out.is_file, "the bad coordinator's run", LIMIT_S + 60)
    return dict(json.loads(out.read_text(encoding="utf-8")))


def _ask(grid: Grid, nodes: list[int], wave: Wave) -> dict[str, dict[str, str]]:
    """Send a wave to every node at once; return name -> node -> code, or what else came."""
    pending: dict[str, tuple[str, int]] = {}
    for name, request in wave.items():
        messages = [Message(pack(*request), node, "query", ttl=LIMIT_S) for node in nodes]
        ids = grid.push_messages(messages)
        pending |= {message: (name, node) for message, node in zip(ids, nodes, strict=True)}
    answers = {name: dict.fromkeys(map(str, nodes), SILENT) for name in wave}
    deadline = time.monotonic() + LIMIT_S
    while pending and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(pending)):
            name, node = pending.pop(reply.metadata.reply_to_message_id)
            is_error = reply.has_error()
            answers[name][str(node)] = "error" if is_error else _said(wave[name][0], reply)
        time.sleep(0.1)
    return answers


def _said(method: str, reply: Message) -> str:
    reply_fields = read_reply(method if method in METHODS else "status", reply.content)
    if isinstance(reply_fields, Refusal):
        return reply_fields.code
    if isinstance(reply_fields, HandshakeReply) and not reply_fields.accepted:
        return str(reply_fields.refusal_code)
    arrays = getattr(reply_fields, "arrays", None)
    return f"{ANSWERED} {arrays_digest(arrays)}" if arrays else ANSWERED


def _train(
    run: str, number: int, arrays: Arrays, *, digest: str | None = None
) -> tuple[str, str, bytes]:
    request = TrainRequest(run_id=run, round=number, model_digest=digest or arrays_digest(arrays))
    return _encoded("train", request.model_copy(update={"arrays": arrays}))


def _cut(message: tuple[str, str, bytes]) -> tuple[str, str, bytes]:
    method, header, payload = message
    return method, header, payload[:-5]


def _encoded(method: str, request: WireMessage) -> tuple[str, str, bytes]:
    return (method, *request.encode())
