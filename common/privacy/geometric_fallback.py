"""Compute what one share of two-sided geometric noise protects if all others are known.

In mode `distributed` each hospital adds a share: the difference of two negative binomials of shape
r = 1 / shares and success probability 1 - a, a = e^-epsilon (`common.privacy.noise`). If the server
and all other hospitals collude, that share alone hides a patient of this hospital.

Its probabilities are P(k) = (1 - a)^2r sum over j of w_j w_(j + |k|) a^(2j + |k|) with
w_j = Gamma(j + r) / (Gamma(r) j!). For r <= 1 the w_j are log-convex in j, and so is P in k >= 0;
its steps P(k) / P(k + 1) then fall from k = 0 on, towards 1 / a. One count more or less in one
cell therefore changes a probability by at most the factor P(0) / P(1), which is attained: a cell
that holds it is (log P(0) / P(1))-DP, exactly, and for shares = 1 that is epsilon.
"""

import math

import scipy

_ROUND_UP = 1 + 1e-9
"""The hypergeometric functions are right to far more digits."""


def share_epsilon(epsilon: float, shares: int) -> float:
    """Return the pure epsilon (rounded up) of one share of a table's noise.

    Args:
        epsilon: Pure epsilon of the whole noise over L1 sensitivity, > 0.
        shares: Number of shares n_min - t that make it up, >= 1.

    >>> round(share_epsilon(4.0, 3), 2)
    5.1
    """
    if shares == 1:
        return epsilon
    r, square = 1 / shares, math.exp(-2 * epsilon)
    at_zero = float(scipy.special.hyp2f1(r, r, 1, square))
    at_one = r * math.exp(-epsilon) * float(scipy.special.hyp2f1(r, r + 1, 2, square))
    return math.log(at_zero / at_one) * _ROUND_UP
