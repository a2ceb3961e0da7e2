"""Harrell's and Uno's C-index from a survival table H[event, time, score].

A pair is comparable when the one who dies first is known; it is concordant when that one had
the higher risk; equal risks count half (Harrell et al., JAMA 1982). On a grid, pairs that share
an interval or a score bin are known only in part:

- same score bin: concordant by half;
- same interval, two events: comparable, concordant by half (in a short interval the order of
  two deaths says nothing about risk);
- same interval, event and censoring: comparable by half.

`pair_counts` keeps these apart, which gives the largest error the grid can cause. Uno's C
weighs each event by 1 / G(t)^2, G the chance of still being under observation (Uno et al.,
Statistics in Medicine 2011). All functions take leading batch dimensions, for resampling.
"""

from dataclasses import dataclass, fields

import numpy as np

from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray

MIN_EVENTS = 2


@dataclass(frozen=True)
class PairCounts:
    """Pairs of a table by what the grid knows of them; every field has the batch shape.

    Attributes:
        concordant: Different interval, the earlier death has the higher score bin.
        discordant: Different interval, the earlier death has the lower score bin.
        same_score: Different interval, same score bin.
        two_events: Same interval, both died.
        censored_concordant: Same interval, one died, with the higher score bin.
        censored_discordant: Same interval, one died, with the lower score bin.
        censored_same_score: Same interval and score bin, one died.
    """

    concordant: FloatArray
    discordant: FloatArray
    same_score: FloatArray
    two_events: FloatArray
    censored_concordant: FloatArray
    censored_discordant: FloatArray
    censored_same_score: FloatArray

    @property
    def comparable(self) -> FloatArray:
        """Comparable pairs, those in doubt by half."""
        certain = self.concordant + self.discordant + self.same_score + self.two_events
        doubtful = self.censored_concordant + self.censored_discordant + self.censored_same_score
        return certain + 0.5 * doubtful

    @property
    def agreeing(self) -> FloatArray:
        """Concordant pairs, ties and doubts by half."""
        halves = self.same_score + self.two_events + self.censored_concordant
        return self.concordant + 0.5 * halves + 0.25 * self.censored_same_score

    def weighted(self, weight: FloatArray) -> "PairCounts":
        """Return weighted sums over intervals, for counts by interval; weight is (..., T)."""
        parts = (getattr(self, part.name) for part in fields(self))
        return PairCounts(*(np.asarray((part * weight).sum(-1)) for part in parts))

    def c_index(self) -> FloatArray:
        """C, NaN where no pair is comparable."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.agreeing / self.comparable)

    def error_bound(self) -> FloatArray:
        """Largest |gridded C - C of the patient rows|, exact maximum over all orders.

        Every pair in doubt is set to whatever moves C furthest: C_max = (N + X) / (P + X) with
        all X pairs that may be concordant, C_min = N / (P + Y) with all Y that may be
        discordant; N of P pairs are known. Never above (S1 / 2 + 3 S2 / 4) / comparable, S2 the
        event-censoring pairs sharing both bins and S1 all others sharing one.
        """
        n_decided = self.concordant + self.discordant
        free = self.same_score + self.two_events + self.censored_same_score
        up, down = free + self.censored_concordant, free + self.censored_discordant
        with np.errstate(invalid="ignore", divide="ignore"):
            # A pair that pulls the other way drops out where it may not be comparable.
            highest = (self.concordant + up) / (n_decided + up)
            lowest = self.concordant / (n_decided + down)
        value = self.c_index()
        # Undefined where nothing can pull that way: then every pair agrees with the value.
        rise, fall = np.nan_to_num(highest - value), np.nan_to_num(value - lowest)
        return np.asarray(np.maximum(rise, fall))


def pair_counts(table: FloatArray, cell_variance: float = 0.0) -> PairCounts:
    """Return the pairs of survival tables.

    Args:
        table: (..., 2, T, S) counts [censored | died, time, score]; may be noisy or negative.
        cell_variance: Variance of the noise of one cell; removes its bias from squares.
    """
    return interval_pairs(table, cell_variance).weighted(np.ones(table.shape[-2]))


def interval_pairs(table: FloatArray, cell_variance: float = 0.0) -> PairCounts:
    """Return the pairs by the interval of the earlier death; every field is (..., T)."""
    censored, died = table[..., 0, :, :], table[..., 1, :, :]
    total = (censored + died).astype(np.float64)
    later = np.flip(np.cumsum(np.flip(total, -2), -2), -2) - total
    deaths, cens = died.sum(-1), censored.sum(-1)
    concordant = (died * (np.cumsum(later, -1) - later)).sum(-1)
    same_score = (died * later).sum(-1)
    cens_concordant = (died * (np.cumsum(censored, -1) - censored)).sum(-1)
    cens_same = (died * censored).sum(-1)
    squares = deaths**2 - deaths - cell_variance * table.shape[-1]
    return PairCounts(
        concordant,
        deaths * later.sum(-1) - concordant - same_score,
        same_score,
        0.5 * squares,
        cens_concordant,
        deaths * cens - cens_concordant - cens_same,
        cens_same,
    )


def inverse_squares(censoring: FloatArray, last_interval: int) -> FloatArray:
    """Return Uno's weights 1 / G^2 of deaths before an interval, 0 beyond or where G is 0.

    Args:
        censoring: (..., T) G in the middle of each interval.
        last_interval: Deaths in intervals before this index count.
    """
    with np.errstate(divide="ignore"):
        weight = np.where(censoring > 0, 1.0 / np.square(censoring), 0.0)
    return np.where(np.arange(censoring.shape[-1]) < last_interval, weight, 0.0)


def c_index_sd(table: FloatArray) -> float:
    """Return the sampling standard deviation of C, from the table alone.

    Infinitesimal jackknife: sum over cells of count * (dN - C dP)^2 / P^2, dN and dP the change
    in agreeing and comparable pairs that one more patient of that cell brings. NaN when the
    noise of a table makes it negative.
    """
    agreeing, comparable = _pair_gradients(table)
    counts = pair_counts(table)
    influence = (agreeing - counts.c_index() * comparable) / counts.comparable
    variance = float((table * np.square(influence)).sum())
    return float(np.sqrt(variance)) if variance >= 0 else float("nan")


def _pair_gradients(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Agreeing and comparable pairs that a patient of each cell takes part in, (2, T, S) each."""
    censored, died = table[0], table[1]
    total = table.sum(0)
    later = np.flip(np.cumsum(np.flip(total, 0), 0), 0) - total
    earlier = np.cumsum(died, 0) - died

    def below(cells: FloatArray) -> FloatArray:
        """Cells of lower score, those of equal score by half."""
        return np.asarray(np.cumsum(cells, -1) - cells / 2)

    def above(cells: FloatArray) -> FloatArray:
        return np.asarray(np.flip(np.cumsum(np.flip(cells, -1), -1), -1) - cells / 2)

    deaths, cens = died.sum(-1, keepdims=True), censored.sum(-1, keepdims=True)
    as_later, before = above(earlier), earlier.sum(-1, keepdims=True)
    same = deaths - 0.5
    agreeing_died = below(later) + as_later + 0.5 * below(censored) + 0.5 * same
    agreeing_censored = as_later + 0.5 * above(died)
    comparable_died = later.sum(-1, keepdims=True) + before + 0.5 * cens + same
    comparable_censored = before + 0.5 * deaths
    shape = died.shape
    return (
        np.stack([agreeing_censored, agreeing_died]),
        np.stack(
            [np.broadcast_to(comparable_censored, shape), np.broadcast_to(comparable_died, shape)]
        ),
    )


def c_index_estimate(table: FloatArray, cell_variance: float = 0.0) -> Estimate:
    """Return Harrell's C of one table (2, T, S) with its error bound, or why there is none.

    With exact tables an event count below 2 makes C uninformative; noisy tables are only
    refused where no pair is left.
    """
    exact = not cell_variance
    reason = refuse_few_events(table) if exact else None
    if reason:
        return not_estimable(reason)
    counts = pair_counts(table, cell_variance)
    if float(counts.comparable) <= 0:
        return not_estimable("no comparable pair")
    certain = counts.concordant + counts.discordant + counts.same_score
    if exact and float(certain) <= 0:
        return not_estimable("no pair of patients whose order in time the grid knows")
    caveat = "fewer than 5 events" if exact and table[1].sum() < MIN_SHOWN else None
    value = float(np.clip(counts.c_index(), 0.0, 1.0))
    bound = float(counts.error_bound()) if exact else None
    return Estimate(value, caveat, error_bound=bound)


def refuse_few_events(table: FloatArray) -> str | None:
    """Return why a survival metric of an exact table (2, T, S) is uninformative, or None."""
    if table.sum() == 0:
        return "no patient with a known outcome"
    if table[1].sum() == 0:
        return "no event: all patients are censored"
    if table[1].sum() < MIN_EVENTS:
        return "fewer than 2 events: a C-index from one event is uninformative"
    return None
