"""Distillation from a frozen teacher as a loss per patient, so that it can be clipped.

A teacher that was trained on private patients must itself be private; its budget composes.
Knowledge distillation: Hinton, Vinyals and Dean, 2015. Redundancy reduction after Barlow Twins
(Zbontar et al., ICML 2021), whose batch form couples patients and is replaced here.
"""

import torch
from torch import Tensor
from torch.nn import functional

from common.cohort.batch import Outputs
from common.study.study import Task

_TINY = 1e-12


def event_distribution(hazard_logits: Tensor) -> Tensor:
    """Return the chance of dying in every interval and of outliving all, (B, K+1), sum 1.

    p_k = h_k S_{k-1} for k < K and p_K = S_{K-1}.
    """
    log_survival = -functional.softplus(hazard_logits).cumsum(-1)
    before = torch.cat([torch.zeros_like(log_survival[:, :1]), log_survival], dim=-1)
    log_hazard = functional.logsigmoid(hazard_logits)
    last = torch.zeros_like(log_hazard[:, :1])
    return torch.exp(before + torch.cat([log_hazard, last], dim=-1))


def predicted_distribution(outputs: Outputs, task: Task) -> Tensor:
    """Return what is predicted for a task as probabilities (B, C)."""
    if task == "survival":
        return event_distribution(outputs.hazard_logits)
    positive = torch.sigmoid(outputs.response_logit)
    return torch.stack([1 - positive, positive], dim=-1)


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Return t^2 KL(teacher^(1/t) || student^(1/t)), (...,), of distributions (..., C)."""
    target_log = torch.log_softmax(teacher.clamp(min=_TINY).log() / temperature, dim=-1)
    student_log = torch.log_softmax(student.clamp(min=_TINY).log() / temperature, dim=-1)
    return temperature**2 * (target_log.exp() * (target_log - student_log)).sum(-1)


def trust_in_teacher(
    student_loss: Tensor, teacher_loss: Tensor, disagreement: Tensor, scale: float = 0.5
) -> Tensor:
    """Return the weight of the teacher's word for each patient, (B,), without gradient.

    sigmoid((l_S - l_T) / scale) (1 + disagreement): follow the teacher where it is better,
    ignore it where it is wrong, the more the two disagree.

    Args:
        student_loss: (B,).
        teacher_loss: (B,).
        disagreement: (B,) half the L1 distance of the two predictions, in [0, 1].
        scale: Loss difference that counts.
    """
    weight = torch.sigmoid((student_loss - teacher_loss) / scale) * (1 + disagreement)
    return weight.detach()


def token_redundancy(tokens: Tensor) -> Tensor:
    """Return the mean squared cosine between different tokens of a patient, (B,).

    Args:
        tokens: (B, T, D), T >= 2.
    """
    rows = functional.normalize(tokens, dim=-1)
    cosines = torch.einsum("btd,bsd->bts", rows, rows)
    n_tokens = tokens.shape[1]
    other = 1 - torch.eye(n_tokens, dtype=tokens.dtype, device=tokens.device)
    return (cosines * other).square().sum((1, 2)) / (n_tokens * (n_tokens - 1))
