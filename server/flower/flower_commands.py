"""Flower's own command `flwr`, run for the coordinator against the consortium's SuperLink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ErrorCode, RunError
from common.storage.atomic_file import write_text
from common.trust.connection import split_address
from server.consortium.bundle import bundle_folder
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_cli import SECRET_VARIABLE

CONNECTION = "consortium"
TIMEOUT_S = 60.0


FLWR = (sys.executable, "-m", "server.flower.flower_cli")
"""Flower's command, with the secret of the control interface."""


def control_secret(folder: ConsortiumFolder) -> Path:
    """Return the file of the secret without which the SuperLink starts no run."""
    return folder.superlink / "control.secret"


def flower_environment(folder: ConsortiumFolder) -> dict[str, str]:
    """Return the environment of every Flower process of the coordinator."""
    return {
        "FLWR_HOME": str(folder.superlink / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        SECRET_VARIABLE: str(control_secret(folder)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def local_address(folder: ConsortiumFolder) -> str:
    """Return how the coordinator's own machine reaches the SuperLink: over loopback."""
    host, port = split_address(folder.consortium().listen)
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def write_connection(folder: ConsortiumFolder) -> None:
    """Tell `flwr` where the SuperLink is and which authority it trusts."""
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f"address = {json.dumps(local_address(folder))}\n"
        f"root-certificates = {json.dumps(str(folder.ca_cert))}\n"
    )
    write_text(folder.superlink / "flwr" / "config.toml", text)


def start_run(folder: ConsortiumFolder, config: Mapping[str, str], run_dir: Path) -> str:
    """Start a Flower run of the bundle and return its id.

    Args:
        folder: The coordinator's folder.
        config: Run configuration; it is not part of the bundle and proves nothing.
        run_dir: Folder of the run; the configuration is kept there.

    Raises:
        RunError: The SuperLink does not take it (TRANSPORT).
    """
    file = run_dir / "run-config.toml"
    write_text(file, "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    bundle, overrides = str(bundle_folder()), str(file)
    told = _flwr(folder, "run", bundle, CONNECTION, "--run-config", overrides)
    return str(told["run-id"])


def stop_run(folder: ConsortiumFolder, flower_run: str) -> None:
    """Stop a Flower run at once.

    Raises:
        RunError: The SuperLink does not know it (TRANSPORT).
    """
    _flwr(folder, "stop", flower_run, CONNECTION)


def register_node(folder: ConsortiumFolder, site_id: str, node_key: str) -> str:
    """Register a SuperNode's public key and return its node id.

    Raises:
        RunError: The SuperLink does not take it (TRANSPORT).
    """
    file = folder.superlink / "keys" / f"{site_id}.pub"
    write_text(file, f"{node_key}\n")
    told = _flwr(folder, "supernode", "register", str(file), CONNECTION, "--name", site_id)
    return str(told["node-id"])


def unregister_node(folder: ConsortiumFolder, node_id: str) -> None:
    """Take a SuperNode's key back; it can no longer authenticate.

    Raises:
        RunError: The SuperLink does not know it (TRANSPORT).
    """
    _flwr(folder, "supernode", "unregister", node_id, CONNECTION)


def _flwr(folder: ConsortiumFolder, *arguments: str) -> dict[str, Any]:
    write_connection(folder)
    command = [*FLWR, *arguments, "--format", "json"]
    environment = {**os.environ, **flower_environment(folder)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        told: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _failed(arguments, type(error).__name__) from None
    if not told.get("success", done.returncode == 0):
        raise _failed(arguments, str(told.get("error-message", "no reason given")))
    return told


def _failed(arguments: tuple[str, ...], why: str) -> RunError:
    return RunError(
        f"Flower refused `flwr {' '.join(arguments[:2])}`",
        where="SuperLink",
        why=why.strip(),
        cure="see `tumorboard server status` and superlink/superlink.log",
        code=ErrorCode.TRANSPORT,
    )
