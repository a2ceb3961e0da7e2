"""One site's validated update, as aggregation rules receive it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.wire import Arrays

FEDERATION = "federation"
"""Stands for all sites together, where only their sum can be seen."""


@dataclass(frozen=True)
class Contribution:
    """What one site, or under a secure sum the sum of all or of a group, adds to a round.

    Attributes:
        site_id: The site, or `federation`.
        arrays: Parameter name -> float array; only of blocks the site contributes to.
        weights: Block -> number of training patients behind it (mode none only).
        steps: Optimiser steps behind a delta; sent with control variates only.
        loss: Mean training loss (mode none only).
        members: Sites in the sum of a group; empty for a site, and for all together.
    """

    site_id: str
    arrays: Arrays
    weights: Mapping[str, float] = field(default_factory=dict)
    steps: int = 1
    loss: float | None = None
    members: tuple[str, ...] = ()
