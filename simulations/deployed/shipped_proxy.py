"""Run nginx with the shipped configuration in front of the SuperLink of a local consortium."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError, RunError
from common.process.deploy_files import deploy_file
from common.process.free_port import listens
from server.consortium.consortium_folder import ConsortiumFolder

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
LOG = "nginx.log"
START_S = 20.0


@contextmanager
def shipped_proxy(folder: Path, consortium: ConsortiumFolder, port: int) -> Iterator[Path]:
    """Run nginx on a port of loopback while the block runs; yields its log.

    Args:
        folder: Where configuration and logs go.
        consortium: Whose SuperLink it stands before.
        port: Port of loopback.

    Raises:
        ConfigError: nginx is not installed, or the shipped files have changed their form.
        RunError: It does not start.
    """
    if NGINX is None:
        raise ConfigError("nginx is not installed", cure="`apt-get install nginx`")
    configuration, log = _configuration(folder, consortium, port), folder / LOG
    command = [NGINX, "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"]
    with log.open("ab") as stream:  # nginx opens it a second time: neither may write over the other
        running = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_S
        while not listens(port):
            if running.poll() is not None or time.monotonic() > deadline:
                raise RunError("nginx does not start", where=str(log), why=log.read_text("utf-8"))
            time.sleep(0.05)
        yield log
    finally:
        running.terminate()
        running.wait(timeout=20)


def _configuration(folder: Path, consortium: ConsortiumFolder, port: int) -> Path:
    """Write the shipped files with other paths and ports; return the main one."""
    site = (deploy_file("proxy") / "tumorboard.conf").read_text("utf-8")
    text = (
        ("127.0.0.1:8443", consortium.consortium().listen),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/srv/tumorboard/consortium", str(consortium.root)),
    )
    for old, new in text:
        if old not in site:
            raise ConfigError(f"the shipped proxy configuration lacks '{old}'")
        site = site.replace(old, new)
    (folder / "tumorboard.conf").write_text(site, "utf-8")
    whole = (deploy_file("proxy") / "nginx.conf").read_text("utf-8")
    whole = whole.replace("/tmp/", f"{folder}/").replace("/etc/nginx/conf.d", str(folder))
    (folder / "nginx.conf").write_text(whole, "utf-8")
    return folder / "nginx.conf"
