"""nginx with the shipped configuration, before the SuperLink of a consortium on disk."""

import shutil
import subprocess
from contextlib import contextmanager

from flower_processes import listens, wait_for

from common.deploy_files import deploy_file

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@contextmanager
def shipped_proxy(folder, consortium, port):
    """Run nginx on a port of loopback inside the block."""
    written = _configuration(folder, consortium, port)
    command = [NGINX, "-p", folder, "-c", written, "-g", "daemon off;"]
    with (folder / "nginx.log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: running.poll() is not None or listens(port), 20)
        assert running.poll() is None, (folder / "nginx.log").read_text()
        yield running
    finally:
        running.terminate()
        running.wait(timeout=20)


def _configuration(folder, consortium, port):
    """The shipped files with other paths and ports."""
    site = (deploy_file("proxy") / "tumorboard.conf").read_text()
    changed = (
        ("127.0.0.1:8443", consortium.consortium().listen),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/srv/tumorboard/consortium", str(consortium.root)),
    )
    for old, new in changed:
        assert old in site
        site = site.replace(old, new)
    (folder / "tumorboard.conf").write_text(site)
    whole = (deploy_file("proxy") / "nginx.conf").read_text().replace("/tmp/", f"{folder}/")
    whole = whole.replace("/etc/nginx/conf.d", str(folder))
    (folder / "nginx.conf").write_text(whole)
    return folder / "nginx.conf"
