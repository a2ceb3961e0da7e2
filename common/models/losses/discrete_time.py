"""Discrete-time survival: likelihood, survival curve and risk from hazard logits.

Follow-up is cut at public left edges e_0 = 0 < e_1 < ... < e_{K-1} (months) into K half-open
intervals [e_k, e_{k+1}); the last one, [e_{K-1}, inf), is open. h_k = sigmoid(z_k) is the
probability of dying in interval k given alive at its start.

The loss is a sum over patients, which the Cox partial likelihood is not; per-patient clipping
needs that. Source: Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016, ch. 3;
Gensheimer and Narasimhan, PeerJ 7:e6257, 2019.
"""

import torch
from torch import Tensor
from torch.nn import functional


def interval_index(time_months: Tensor, edges: Tensor) -> Tensor:
    """Return the interval each time falls in, (B,) int64 in [0, K).

    Args:
        time_months: (B,) follow-up times, >= 0.
        edges: (K,) increasing left edges in months, edges[0] = 0.

    >>> interval_index(torch.tensor([0.0, 11.9, 12.0, 400.0]), torch.tensor([0.0, 12.0, 24.0]))
    tensor([0, 0, 1, 2])
    """
    return ((time_months.unsqueeze(-1) >= edges).sum(-1) - 1).clamp(min=0)


def nll(hazard_logits: Tensor, time_months: Tensor, event: Tensor, edges: Tensor) -> Tensor:
    """Return the negative log-likelihood of each patient, (B,).

    Equals sum_{j<k} softplus(z_j) + d softplus(-z_k) + (1-d) softplus(z_k) for interval k and
    event d: a patient who dies in k survived all before it; a censored patient is credited with
    the whole of interval k. Beyond the last edge k is the open interval K-1.

    Args:
        hazard_logits: (B, K) z.
        time_months: (B,) follow-up times, >= 0.
        event: (B,) 1 = died, 0 = censored.
        edges: (K,) increasing left edges in months, edges[0] = 0.
    """
    index = interval_index(time_months, edges).unsqueeze(-1)
    interval = torch.arange(hazard_logits.shape[-1], device=hazard_logits.device)
    dies_here = (interval == index) & (event.unsqueeze(-1) > 0.5)
    terms = functional.softplus(torch.where(dies_here, -hazard_logits, hazard_logits))
    return torch.where(interval <= index, terms, 0.0).sum(-1)


def survival_curve(hazard_logits: Tensor) -> Tensor:
    """Return S at the right end of every interval, (B, K), decreasing in k.

    The right end of the open last interval is the length of the one before it away.
    """
    return torch.exp(-functional.softplus(hazard_logits).cumsum(-1))


def risk(hazard_logits: Tensor) -> Tensor:
    """Return -sum_k S_k, (B,), in [-K, 0]; higher is worse.

    -sum_k S_k is minus the expected number of intervals survived.
    """
    return -survival_curve(hazard_logits).sum(-1)


def survival_at(hazard_logits: Tensor, edges: Tensor, times: Tensor) -> Tensor:
    """Return S(t) at any times, (B, H), with the hazard rate constant inside an interval.

    log S is linear inside an interval and meets `survival_curve` at its right end. The open
    last interval keeps the rate it would have at the width of the interval before it.

    Args:
        hazard_logits: (B, K).
        edges: (K,) increasing left edges in months, edges[0] = 0, K >= 2.
        times: (H,) months, >= 0.
    """
    widths = edges.diff()
    widths = torch.cat([widths, widths[-1:]])
    share = ((times.unsqueeze(-1) - edges) / widths).clamp(min=0.0)
    last = torch.arange(len(edges), device=edges.device) == len(edges) - 1
    fraction = torch.where(last, share, share.clamp(max=1.0))
    return torch.exp(-functional.softplus(hazard_logits) @ fraction.to(hazard_logits.dtype).T)
