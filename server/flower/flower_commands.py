"""Start runs and register nodes: the coordinator's calls to the SuperLink."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from common.errors import ErrorCode, RunError
from common.trust.connection import split_address
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.bundle import build_bundle
from server.flower.flower_internals import ControlClient


def control_secret(folder: ConsortiumFolder) -> Path:
    """Return the file of the secret without which the SuperLink starts no run."""
    return folder.superlink / "control.secret"


def flower_environment(home: Path) -> dict[str, str]:
    """Return the environment of a Flower process that keeps its own files in a folder."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def local_address(folder: ConsortiumFolder) -> str:
    """Return how the coordinator's own machine reaches the SuperLink: over loopback."""
    host, port = split_address(folder.consortium().listen)
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def start_run(
    folder: ConsortiumFolder, config: Mapping[str, str], *, bundle: bytes | None = None
) -> str:
    """Start a Flower run and return its id.

    Args:
        folder: The coordinator's folder.
        config: Run configuration; it is not part of the bundle and proves nothing.
        bundle: What is sent to hospitals; the installed bundle by default.

    Raises:
        RunError: The SuperLink does not take it (TRANSPORT).
    """
    with _control(folder, "start a run") as control:
        return str(control.start_run(bundle or build_bundle(), config))


def stop_run(folder: ConsortiumFolder, flower_run: str) -> None:
    """Stop a Flower run at once.

    Raises:
        RunError: The SuperLink does not know it (TRANSPORT).
    """
    with _control(folder, f"stop run {flower_run}") as control:
        control.stop_run(int(flower_run))


def register_node(folder: ConsortiumFolder, site_id: str, node_key: str) -> str:
    """Register a SuperNode's public key and return its node id.

    Raises:
        RunError: The SuperLink does not take it (TRANSPORT).
    """
    with _control(folder, f"register the node of {site_id}") as control:
        return str(control.register(site_id, node_key))


def unregister_node(folder: ConsortiumFolder, node_id: str) -> None:
    """Take a SuperNode's key back; it can no longer authenticate.

    Raises:
        RunError: The SuperLink does not know it (TRANSPORT).
    """
    with _control(folder, f"unregister node {node_id}") as control:
        control.unregister(int(node_id))


def registered_nodes(folder: ConsortiumFolder) -> dict[str, str]:
    """Return node key (OpenSSH format) -> Flower's node id, as the SuperLink knows them.

    Raises:
        RunError: The SuperLink does not answer (TRANSPORT).
    """
    with _control(folder, "list its nodes") as control:
        return {key: str(node) for key, node in control.nodes().items()}


@contextmanager
def _control(folder: ConsortiumFolder, what: str) -> Iterator[ControlClient]:
    """Yield a client of the control interface; what it raises becomes one error."""
    address = local_address(folder)
    try:
        secret = control_secret(folder).read_bytes().hex()
        with closing(ControlClient(address, folder.ca_cert.read_bytes(), secret)) as control:
            yield control
    except Exception as error:  # of Flower, its HTTP library, or the line
        answer = getattr(getattr(error, "response", None), "text", "")
        raise RunError(
            f"the SuperLink did not {what}",
            where=address,
            why=str(answer or error or type(error).__name__)[:500],
            cure=f"see `tumorboard server status` and {folder.superlink_log}",
            code=ErrorCode.TRANSPORT,
        ) from None
