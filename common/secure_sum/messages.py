"""Define the messages of a secure sum.

Once a run: `AdvertiseRequest` and `AgreeKeysRequest`. Each round: the masked upload travels in
the arrays of the training reply (`masked`, `sealed_shares`, `commitments`), then one
`UnmaskRequest`.
"""

from pydantic import Field

from common.secure_sum.keys import KeyAdvert
from common.secure_sum.ledger_mark import LedgerMark
from common.study.study import Identifier
from common.wire import WireMessage

UPLOAD_ARRAYS = ("masked", "sealed_shares", "commitments")
"""masked (d,) int64 or int32; sealed_shares (N, 33 N + 28) uint8; commitments (N, 32) uint8."""

Hex64 = str


class AdvertiseRequest(WireMessage):
    """Asks a site for fresh signed keys; a higher session replaces earlier keys of the run."""

    run_id: Identifier
    session: int = Field(default=1, ge=1)
    study_digest: Hex64


class AdvertiseReply(WireMessage):
    """A site's signed keys."""

    site_id: Identifier
    run_id: Identifier
    advert: KeyAdvert


class AgreeKeysRequest(WireMessage):
    """Shows a site the signed keys of all participants."""

    run_id: Identifier
    session: int = Field(default=1, ge=1)
    adverts: list[KeyAdvert]


class AgreeKeysReply(WireMessage):
    """The site took part; the digest must be the same at all sites."""

    site_id: Identifier
    run_id: Identifier
    session: int
    participants_digest: Hex64


class UnmaskRequest(WireMessage):
    """Names the sites whose uploads arrived, and asks for what removes their masks.

    `arrays`: `sealed_shares` (S, 33 N + 28) uint8, row by row what the survivors sent for the
    addressed site.
    """

    run_id: Identifier
    session: int
    round: int = Field(ge=1)
    survivors: list[Identifier]
    marks: list[LedgerMark] = Field(
        default_factory=list, description="where the survivors' ledgers stood in this round"
    )


class UnmaskReply(WireMessage):
    """A locked answer, see `list_lock`; or who sent this site shares that cannot be opened.

    `arrays`: `sealed` (L,), `covered` (N, 33), `tokens` (N, 33), all uint8, rows in the order
    of participants.
    """

    site_id: Identifier
    run_id: Identifier
    session: int
    round: int
    list_digest: Hex64
    unreadable: list[Identifier] = Field(default_factory=list)
