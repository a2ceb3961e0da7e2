"""Binary treatment response: cross-entropy of each patient."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def binary_nll(response_logit: Tensor, response: Tensor) -> Tensor:
    """Return the negative log-likelihood of each patient, (B,).

    Args:
        response_logit: (B,) logit of response.
        response: (B,) 1 = responder, 0 = not.
    """
    return functional.binary_cross_entropy_with_logits(response_logit, response, reduction="none")
