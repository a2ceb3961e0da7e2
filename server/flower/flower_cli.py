"""Flower's command `flwr` with the coordinator's key to the control interface of the SuperLink.

Run as `python -m server.flower.flower_cli`, it takes the arguments of `flwr`; the environment
names the file of the secret, so that it stands in no list of processes. This leans on an internal
name of Flower; Flower is pinned, and tests drive the real one.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONTROL_HEADER = "tumorboard-control"
SECRET_VARIABLE = "TUMORBOARD_CONTROL_SECRET"  # the name of a file, not a secret


class _ShowSecret:
    """Adds the secret to every request."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Send a request on with the secret in its headers."""
        context.request.headers[CONTROL_HEADER] = self._secret
        return call_next(context)


def main() -> None:
    """Run `flwr`."""
    secret = Path(os.environ[SECRET_VARIABLE]).read_bytes().hex()
    utils = vars(import_module("flwr.cli.utils"))
    own = utils["ControlHttpClient"].from_server_address
    show = _ShowSecret(secret)

    def keyed(*arguments: Any, interceptors: Any, **options: Any) -> Any:
        return own(*arguments, interceptors=[*interceptors, show], **options)

    utils["ControlHttpClient"] = SimpleNamespace(from_server_address=keyed)
    sys.argv[0] = "flwr"
    import_module("flwr.cli.app").app()


if __name__ == "__main__":
    main()
