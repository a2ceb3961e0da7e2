"""Interface by which the round loop reaches the sites, whatever the transport."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.wire import WireMessage


@dataclass(frozen=True)
class Refusal:
    """A site, or what carries its messages, says no.

    Attributes:
        code: A stable code of `common.errors.ErrorCode`; never text from the site.
    """

    code: str


class SiteLink(Protocol):
    """Asks several sites at once and collects what arrives before a deadline.

    The same request may be delivered more than once: every agent answers a repeated request
    with the stored reply. A reply that comes after the deadline is dropped, unless the same
    request is made again.
    """

    def site_ids(self) -> tuple[str, ...]:
        """Return the sites that can be reached now, sorted."""
        ...

    def exchange(
        self,
        method: str,
        requests: Mapping[str, WireMessage],
        *,
        deadline_s: float,
        optional: Collection[str] = (),
        needed: int = 0,
    ) -> dict[str, WireMessage | Refusal]:
        """Send one request per site and return what came back in time.

        Args:
            method: A key of `common.protocol.protocol.METHODS`.
            requests: Site -> request. Sharing one object between sites encodes it once.
            deadline_s: Seconds to wait at most; also for a site that has yet to appear.
            optional: Sites that are asked but hold nobody up: once all others have answered
                they get half as long again, two seconds at least. So are sites whose node has
                gone offline.
            needed: With fewer replies than these nobody is optional, and all are waited for.

        Returns:
            Site -> reply of the declared type, or a refusal; silent sites are absent.
        """
        ...
