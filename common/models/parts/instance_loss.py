"""CLAM's instance loss: attention must select patches that look like the patient's class.

Source: Lu et al., Nature Biomedical Engineering 5, 2021. For the patient's class the k patches
with most attention are positives and the k with least are negatives of a two-way classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceLoss(nn.Module):
    """One two-way patch classifier a response class.

    Args:
        width: Width H of a hidden token.
        n_patches: k.
    """

    def __init__(self, width: int, n_patches: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, 4)
        self._k = n_patches

    def forward(self, hidden: Tensor, weights: Tensor, mask: Tensor, response: Tensor) -> Tensor:
        """Return the mean cross-entropy of 2k patches, (B,); 0 for bags under 2k real tokens.

        Args:
            hidden: (B, T, H) tokens.
            weights: (B, T) attention.
            mask: (B, T) bool.
            response: (B,) 0 or 1, anything where unobserved.
        """
        if hidden.shape[1] < 2 * self._k:
            return response.new_zeros(len(response))
        high = torch.where(mask, weights, -1.0).detach().topk(self._k, dim=-1).indices
        low = torch.where(mask, -weights, -2.0).detach().topk(self._k, dim=-1).indices
        logits = self.classifier(hidden).reshape(*hidden.shape[:2], 2, 2)
        own = torch.where((response > 0.5)[:, None, None], logits[:, :, 1], logits[:, :, 0])
        margin = own[..., 1] - own[..., 0]
        positives = functional.softplus(-margin.gather(1, high))
        negatives = functional.softplus(margin.gather(1, low))
        losses = torch.cat([positives, negatives], dim=1)
        return torch.where(mask.sum(-1) >= 2 * self._k, losses.mean(-1), 0.0)
