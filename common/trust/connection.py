"""Contract of a site's connection: the part of a site kit that pins all the rest.

Its fingerprint, compared once by telephone, covers the authority that signs the server's
certificate, the key that signs rosters, and the one bundle the site gate lets through.
"""

from pydantic import Field

from common.contract import Contract
from common.study.study import Identifier
from common.trust.signature import PUBLIC_KEY, spoken

FILE = "connection.yaml"
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
ADDRESS = rf"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):({_PORT})$"
"""host:port; an IPv6 host in brackets."""


class Connection(Contract):
    """`connection.yaml` of a site kit.

    Attributes:
        consortium: Name of the consortium.
        site_id: The site the kit was made for.
        superlink: Address the SuperNode calls, host:port.
        bundle_digest: SHA-256 of the only Flower bundle that may start here.
        ca_digest: SHA-256 of the consortium's CA certificate (DER).
        roster_key: Public key that signs rosters, hex.
        audit_key: Public key that signs the coordinator's audit log, hex.
    """

    consortium: Identifier
    site_id: Identifier
    superlink: str = Field(pattern=ADDRESS)
    bundle_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    ca_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    roster_key: str = Field(pattern=PUBLIC_KEY)
    audit_key: str = Field(pattern=PUBLIC_KEY)

    @property
    def fingerprint(self) -> str:
        """Digest of the connection as people compare it by telephone."""
        return spoken(self.digest())


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`, an IPv6 host without its brackets.

    Example:
        >>> split_address("[::1]:8443")
        ('::1', 8443)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
