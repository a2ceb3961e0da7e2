"""How a study combines what the sites send, and what stays with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from common.contract import Contract
from common.privacy.plan import Mode

if TYPE_CHECKING:
    from common.study.study import TrainingPlan

Rule = Literal["mean", "median", "trimmed_mean", "centred_clipping", "krum"]


class AggregationRule(Contract):
    """How updates of the sites become one; all but `mean` withstand a few liars.

    The others need to see each update, so they exclude mode distributed, and they treat all
    sites alike: an update is a mean over the site's patients, and none counts more for its size.
    """

    rule: Rule = "mean"
    trim: float = Field(
        default=0.2,
        ge=0,
        lt=0.5,
        description="trimmed_mean: share cut off at each end, at least one site unless 0",
    )
    byzantine: int = Field(default=1, ge=1, description="krum: liars it shall withstand")
    radius: float | None = Field(
        default=None,
        gt=0,
        description="centred_clipping: farthest a site moves the centre; by default the median "
        "distance to it",
    )
    iterations: int = Field(default=3, ge=1, description="centred_clipping: steps a round")
    norm_factor: float | None = Field(
        default=None,
        ge=1,
        description="updates longer than this many times the median one are shortened to it",
    )


def stays_local(parameter: str, patterns: Sequence[str]) -> bool:
    """Return whether a parameter is kept by every site, by the patterns of `stay_local`.

    Example:
        >>> stays_local("fusion.norm.weight", ["*norm*"]), stays_local("heads.w", ["*norm*"])
        (True, False)
    """
    return any(fnmatchcase(parameter, pattern) for pattern in patterns)


def check_method(plan: TrainingPlan, mode: Mode) -> None:
    """Refuse methods that contradict each other or the privacy mode.

    Raises:
        ValueError: Saying which two keys exclude each other, and why.
    """
    rule, local = plan.aggregation, plan.local
    if mode == "distributed" and (rule.rule != "mean" or rule.norm_factor is not None):
        raise ValueError(
            "training.aggregation: mode 'distributed' opens only the sum of all updates, so no "
            "rule can look at one; use rule 'mean', or mode 'local'"
        )
    needs_deltas = {
        "training.local.control_variates": local.control_variates,
        "training.schedule: cyclic": plan.schedule == "cyclic",
        "training.stay_local": bool(plan.stay_local),
    }
    for key, used in needs_deltas.items():
        if used and local.kind != "epochs":
            raise ValueError(f"{key} needs training.local.kind: epochs")
    if mode != "none" and plan.personal is not None:
        raise ValueError(
            "training.personal needs privacy.mode none: tables of a model that has seen a site's "
            "training patients without noise would tell about them"
        )
    if mode == "local" and (local.control_variates or local.modality_dropout or plan.stay_local):
        raise ValueError(
            "privacy.mode 'local' noises every step of the whole model at once; leave out "
            "control_variates, modality_dropout and stay_local, or use mode none"
        )
    if local.control_variates and local.optimizer != "sgd":
        raise ValueError(
            "training.local.control_variates corrects plain gradient steps; use optimizer: sgd"
        )
    if plan.schedule == "cyclic" and (plan.server.name != "average" or rule.rule != "mean"):
        raise ValueError(
            "training.schedule: cyclic hands one site's model on as it is; use server.name: "
            "average and aggregation.rule: mean"
        )
    if any(set(pattern) <= {"*"} for pattern in plan.stay_local):
        raise ValueError(
            "training.stay_local '*' keeps every parameter with its site, so nothing would be "
            "shared and no common model trained; name fewer, e.g. '*norm*' (FedBN)"
        )
    if plan.personal is not None and plan.stay_local:
        raise ValueError("training.personal and training.stay_local exclude each other")
    if plan.personal is not None and plan.personal.local.kind != "epochs":
        raise ValueError("training.personal.local.kind must be epochs")
    if plan.personal is not None and plan.personal.local.control_variates:
        raise ValueError("training.personal.local knows no control_variates")
