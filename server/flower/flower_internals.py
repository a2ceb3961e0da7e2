"""Collect, in one place, what the coordinator replaces or relies on in Flower, uvicorn and ssl.

Seen with Flower 1.41.0, uvicorn 0.49 and Python 3.11; Flower is pinned below 1.42. Each section
says why it is needed and why no public hook of Flower does instead. For each,
`tests/server/flower/test_flower_internals.py` fails when Flower changes it or no longer needs it.

Flower is imported inside the functions: that takes 0.4 s, which commands that never speak to Flower
do not pay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from common.contract import sha256_hex

if TYPE_CHECKING:
    import ssl

    from flwr.app import Message
    from starlette.middleware import Middleware

# --- Replies whose content has not arrived ---------------------------------------------------
# A message is visible a moment before its content, and whoever looks often meets that moment in
# every exchange. Flower then pauses 1 s, next 2 s. Its grid passes no waiting times on, and reads
# none from the environment: only the defaults of its function can be changed.

SHORT_WAITS = {"initial_backoff": 0.02, "backoff_cap": 1.0, "max_tries_per_object": 7200}
"""Pauses in s; retries with the longest pause last as long as Flower's own, two hours."""


def shorten_waits() -> None:
    """Have Flower look again for missing content after 20 ms, then less and less often."""
    from flwr.supercore.inflatable.inflatable_utils import pull_objects

    pull_objects.__kwdefaults__ = {**(pull_objects.__kwdefaults__ or {}), **SHORT_WAITS}


# --- The control interface -------------------------------------------------------------------
# The guard asks every call for the coordinator's secret. `flwr` can send no header of ours (its
# account plugins are a closed list), and the list of nodes it prints lacks their keys. Its client
# takes interceptors.

CONTROL_HEADER = "tumorboard-control"


class ControlClient:
    """Calls the SuperLink's control interface with the coordinator's secret.

    Args:
        address: host:port of the SuperLink.
        ca_cert: Certificate of the authority that signed the SuperLink's, PEM.
        secret: The secret, hex.

    Whatever Flower or the line raises, every method raises.
    """

    def __init__(self, address: str, ca_cert: bytes, secret: str) -> None:
        from flwr.proto import control_pb2
        from flwr.supercore.control import ControlHttpClient

        self._secret, self._requests = secret, cast("Any", control_pb2)
        self._client = ControlHttpClient.from_server_address(address, False, ca_cert, [self])

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Send a request on with the secret in its headers."""
        context.request.headers[CONTROL_HEADER] = self._secret
        return call_next(context)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def start_run(self, bundle: bytes, config: Mapping[str, str]) -> int:
        """Start a run of a bundle with a run configuration; return its id."""
        from flwr.proto.fab_pb2 import Fab
        from flwr.proto.transport_pb2 import Scalar

        fab = Fab(hash_str=sha256_hex(bundle), content=bundle)
        overrides = {name: Scalar(string=value) for name, value in config.items()}
        reply = self._client.StartRun(
            self._requests.StartRunRequest(fab=fab, override_config=overrides)
        )
        if not reply.HasField("run_id"):
            raise ValueError(reply.note or "no reason given")
        return reply.run_id

    def stop_run(self, run: int) -> None:
        """Stop a run at once."""
        if not self._client.StopRun(self._requests.StopRunRequest(run_id=run)).success:
            raise ValueError("no reason given")

    def register(self, name: str, node_key: str) -> int:
        """Register a node's key (OpenSSH format); return the node's id."""
        key = load_ssh_public_key(node_key.encode("ascii"))
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return self._client.RegisterNode(
            self._requests.RegisterNodeRequest(public_key=pem, name=name)
        ).node_id

    def unregister(self, node: int) -> None:
        """Take a node's key back."""
        self._client.UnregisterNode(self._requests.UnregisterNodeRequest(node_id=node))

    def nodes(self) -> dict[str, int]:
        """Return node key (OpenSSH format) -> node id of all registered nodes."""
        infos = self._client.ListNodes(self._requests.ListNodesRequest()).nodes_info
        present = [node for node in infos if node.status != "unregistered"]
        return {_openssh(node.public_key): node.node_id for node in present}


def _openssh(pem: bytes) -> str:
    key = load_pem_public_key(pem)
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def build_bundle(folder: Path) -> bytes:
    """Return a folder as the bundle that hospitals get; the same bytes every time.

    Their digest is what hospitals allow, so they must be those of Flower's own builder, which
    Flower offers only inside `flwr build`.
    """
    from flwr.cli.build import build_fab_from_disk

    return build_fab_from_disk(folder)


# --- The SuperLink behind a guard ------------------------------------------------------------
# Flower loads middleware from a module of this name, which a distribution of its own would bring:
# the hook is used, nothing is replaced. `uvicorn.run` lets its caller make the TLS context, but
# Flower does not pass that on. Fatal TLS alerts of callers reach neither uvicorn nor asyncio; of
# ssl, only a private callback is notified.

EXTENSIONS = "flwr.ee.superlink.extensions"
FLEET, RUNTIME, CONTROL = "/v1/fleet/", "/v1/runtime/", "/v1/control/"
KEY_HEADER, STAMP_HEADER = "flwr-public-key", "flwr-timestamp"
STAMP_VALID_S = 305.0
"""Seconds for which Flower accepts a node's signed time stamp, which is all that a node signs."""

KEY_REFUSED = frozenset({2001, 2002, 2004})
"""Flower's codes for a node key that it does not know, or that wants to register itself."""

READS = ("list-", "get-", "show-", "stream-", "pull-", "refresh-")
"""Beginnings of the control interface's calls that change nothing."""


def run_superlink(
    arguments: Sequence[str], guard: Middleware, note_alert: Callable[[str], None]
) -> None:
    """Run `flower-superlink` with a guard around it, until it is ended.

    Args:
        arguments: Its arguments.
        guard: The outermost layer of its HTTP interface.
        note_alert: Called with the name of every fatal TLS alert that a caller sends.
    """
    offer_middleware(guard)
    uvicorn = import_module("uvicorn")
    vars(uvicorn)["run"] = partial(
        uvicorn.run, ssl_context_factory=lambda _, make: watch_alerts(make(), note_alert)
    )
    sys.argv = ["flower-superlink", *arguments]
    import_module("flwr.superlink.cli").flower_superlink()


def interface_paths(name: str) -> list[str]:
    """Return every path of the SuperLink's interface `control` or `runtime`, sorted."""
    where = "flwr.superlink" if name == "control" else "flwr.supercore"
    router = import_module(f"{where}.routers.{name}.router").router
    return sorted({str(route.path) for route in router.routes})


def offer_middleware(guard: Middleware) -> None:
    """Have a SuperLink that starts in this process put a guard around itself."""
    module = ModuleType(EXTENSIONS)
    vars(module)["get_middleware"] = lambda: (guard,)
    sys.modules[EXTENSIONS] = module


def watch_alerts(context: ssl.SSLContext, note_alert: Callable[[str], None]) -> ssl.SSLContext:
    """Return a TLS context after having every fatal alert of a peer reported."""

    def note(_: object, direction: str, __: object, kind: Any, what: Any, ___: object) -> None:
        if direction == "read" and getattr(kind, "name", "") == "ALERT":
            alert = str(getattr(what, "name", "")).lower()
            if alert != "close_notify":
                note_alert(alert)

    vars(type(context))["_msg_callback"].__set__(context, note)
    return context


# --- Messages within one process -------------------------------------------------------------
# Flower tells a process which task it runs, and numbers messages, where its own engines would.
# A Grid of our own has to do both; Flower offers nothing for it.


def begin_server_task() -> None:
    """Let this process make messages as the server app of run 1."""
    identity = import_module("flwr.supercore.task_identity").TaskIdentity
    identity.task_id, identity.run_id, identity.node_id = 1, 1, 0


def number_message(message: Message, message_id: str) -> None:
    """Give a message its id."""
    vars(message.metadata)["_message_id"] = message_id
