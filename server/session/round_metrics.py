"""Registry of the figures of a round, for the live page, the report and experiment trackers."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.registry import Registry
from server.session.checkpoint import RoundRecord


@dataclass(frozen=True)
class RoundMetric:
    """One figure of a round.

    Attributes:
        name: As programs and trackers know it.
        title: Name for people.
        unit: Unit, if it has one.
        value: Reads it from a record; None where it is not known.
        on_page: Whether the live page draws it over rounds.
        in_report: Whether the report does.
        from_zero: Whether its axis starts at 0.
    """

    name: str
    title: str
    unit: str
    value: Callable[[RoundRecord], float | None]
    on_page: bool = True
    in_report: bool = True
    from_zero: bool = True

    def points(self, history: Iterable[RoundRecord]) -> tuple[tuple[int, float], ...]:
        """Return (round, value) of the rounds in which it is known and finite."""
        values = ((record.round, self.value(record)) for record in history)
        return tuple((n, float(v)) for n, v in values if v is not None and math.isfinite(v))


ROUND_METRICS = Registry(
    "figure of a round",
    (
        RoundMetric("loss", "Mean training loss", "", lambda r: r.loss, from_zero=False),
        RoundMetric("update_norm", "Change of the model", "L2 norm", lambda r: r.update_norm),
        RoundMetric("sites", "Sites that took part", "sites", lambda r: len(r.sites)),
        RoundMetric("seconds", "Time per round", "s", lambda r: r.seconds, in_report=False),
        RoundMetric("attempts", "Attempts per round", "", lambda r: r.attempts, False, False),
    ),
)
