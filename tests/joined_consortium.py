"""A provisioned consortium with admitted hospitals on disk, and its processes with TLS."""

import subprocess

from flower_processes import environment, free_port, listens, wait_for

from client.site.enrol_connection import SiteConnection
from client.site.enrol_install import install_kit
from client.site.enrol_request import make_keys, write_request
from client.site.identity import node_key_path
from client.site.site_folder import load_policy
from client.site.site_template import write_site_template
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import provision
from server.consortium.provision_kit import write_kit
from server.consortium.provision_roster import admit
from server.flower.bundle import bundle_digest


def make_consortium(folder):
    """A consortium on a free port of loopback."""
    where = f"127.0.0.1:{free_port()}"
    root = provision(folder / "lab", name="lab", address=where, listen=where, sans=[])
    return ConsortiumFolder.open(root)


def make_hospital(folder, site_id):
    """A hospital with keys; returns its policy."""
    write_site_template(folder / site_id, site_id)
    policy = load_policy(folder / site_id)
    make_keys(policy)
    return policy


def join(consortium, policy, folder):
    """Request, admission, kit, installation; returns the installed connection."""
    path = folder / f"{policy.site_id}.request.json"
    write_request(policy, "", path)
    admit(consortium, path)
    write_kit(
        consortium, policy.site_id, folder / f"{policy.site_id}-kit", bundle_digest=bundle_digest()
    )
    target = SiteConnection.of_site(folder / policy.site_id)
    install_kit(policy, folder / f"{policy.site_id}-kit", target, fingerprint=None)
    return target


def start_superlink(consortium, folder, start):
    """The SuperLink with TLS and node authentication, and Flower's own connection to it."""
    listen = consortium.consortium().listen
    host, port = listen.split(":")
    (folder / "flwr").mkdir(exist_ok=True)
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "{listen}"\n'
        f'root-certificates = "{consortium.ca_cert}"\n'
    )
    link = start(
        *("flower-superlink", "--host", host, "--port", port),
        *("--ssl-certfile", consortium.server_cert, "--ssl-keyfile", consortium.server_key),
        *("--ssl-ca-certfile", consortium.ca_cert, "--enable-supernode-auth"),
        *("--database", consortium.database, "--isolation", "subprocess"),
        "--disable-runtime-dependency-installation",
    )
    wait_for(lambda: listens(int(port)), 60)
    return link


def flwr(folder, *command):
    """Run Flower's own command line; returns the finished process."""
    return subprocess.run(
        ["flwr", *map(str, command)],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def start_supernode(connection, policy, start, socket, *, address=None, gated=True):
    """A SuperNode behind the site gate."""
    return start(
        *("flower-supernode", "--superlink", address or connection.connection().superlink),
        *("--root-certificates", connection.ca_cert),
        *("--auth-supernode-private-key", node_key_path(policy.identity_key)),
        *("--node-config", f'agent-socket="{socket}"'),
        *("--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "subprocess"),
        path_first=(connection.gate,) if gated else (),
    )
