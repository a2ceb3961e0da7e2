"""Define the coordinator's processes: the SuperLink and the executor of server apps.

Flower can start server apps from the SuperLink itself (subprocess isolation) or from a process
of their own (process isolation). A killed SuperLink takes the former with it; with the latter a
run survives until its token is out of date. Process isolation is therefore what is used here.
"""

import sys
from pathlib import Path

from common.errors import ConfigError
from common.process.free_port import free_port
from common.process.grpc_health import is_serving
from common.process.supervisor import Child, Supervised, check_not_running, read_supervised
from common.trust.connection import split_address
from common.trust.secret_file import fresh_secret
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import (
    control_secret,
    flower_environment,
    local_address,
)

EXECUTOR_POLL_S = "0.5"
LOOPBACK = "127.0.0.1"


def server_processes(folder: ConsortiumFolder) -> tuple[list[Child], dict[str, object]]:
    """Return what the coordinator runs, and facts for the status file.

    Raises:
        ConfigError: A certificate or key is missing, or the server runs already.
    """
    check_not_running(status_file(folder))
    for path in (folder.ca_cert, folder.server_cert, folder.server_key):
        if not path.is_file():
            raise ConfigError(
                "a file of the consortium is missing",
                where=str(path),
                cure="restore it from backup, or `tumorboard server provision --rotate`",
            )
    secret = fresh_secret(folder.superlink / "executor.secret")
    control = fresh_secret(control_secret(folder))
    health = f"{LOOPBACK}:{free_port()}"
    host, port = split_address(folder.consortium().listen)
    shared = flower_environment(folder.superlink / "flwr")
    superlink = [sys.executable, "-m", "server.flower.guarded_superlink"]
    superlink += ["--consortium", str(folder.root), "--control-secret", str(control)]
    superlink += ["--host", host, "--port", str(port)]
    superlink += ["--ssl-certfile", str(folder.server_cert)]
    superlink += ["--ssl-keyfile", str(folder.server_key)]
    superlink += ["--ssl-ca-certfile", str(folder.ca_cert), "--enable-supernode-auth"]
    superlink += ["--database", str(folder.database), "--isolation", "process"]
    superlink += ["--superexec-auth-secret-file", str(secret)]
    superlink += ["--health-server-address", health, "--disable-runtime-dependency-installation"]
    executor = ["flower-superexec", "--runtime-api-address", local_address(folder)]
    executor += ["--root-certificates", str(folder.ca_cert)]
    executor += ["--superexec-auth-secret-file", str(secret)]
    children = [
        Child("superlink", superlink, folder.superlink_log, shared, lambda: is_serving(health)),
        Child(
            "executor",
            executor,
            folder.superlink / "executor.log",
            {**shared, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": EXECUTOR_POLL_S},
        ),
    ]
    return children, {"superlink_health": health, "listen": folder.consortium().listen}


def status_file(folder: ConsortiumFolder) -> Path:
    """Return the status file of the coordinator's processes."""
    return folder.superlink / "processes.json"


def running_server(folder: ConsortiumFolder) -> Supervised | None:
    """Return what `tumorboard server up` runs here, or None."""
    return read_supervised(status_file(folder))


def is_superlink_healthy(folder: ConsortiumFolder) -> bool:
    """Return whether the SuperLink answers over gRPC that it is serving."""
    running = running_server(folder)
    return running is not None and is_serving(str(running.facts.get("superlink_health", "")))
