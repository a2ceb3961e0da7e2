"""Declare how a study combines the sites' updates, and which parameters stay at a site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from common.contract import Contract
from common.errors import ConfigError
from common.privacy.plan import Mode
from common.study.catalogue import RULES, is_additive

if TYPE_CHECKING:
    from common.study.study import TrainingPlan

ROUND = frozenset({"rows", "weights", "centre"})
"""What an aggregation rule is given of a round, by the names of its arguments."""


class AggregationRule(Contract):
    """How updates of the sites become one; all but `mean` withstand a few liars.

    The others need to see each update, or in mode distributed each sum of `privacy.groups`, and
    treat all alike: an update is a mean over the patients of a site or group, and none counts
    more for its size.
    """

    rule: str = Field(
        default="mean",
        description="mean, median, trimmed_mean, centred_clipping, krum, or any other of "
        "`common.study.catalogue.RULES` or of another installed distribution",
    )
    trim: float = Field(
        default=0.2,
        ge=0,
        lt=0.5,
        description="trimmed_mean: share cut off at each end, at least one site unless 0",
    )
    byzantine: int = Field(default=1, ge=1, description="krum: number of lying sites to withstand")
    radius: float | None = Field(
        default=None,
        gt=0,
        description="centred_clipping: farthest a site moves the centre; by default the median "
        "distance to it",
    )
    iterations: int = Field(default=3, ge=1, description="centred_clipping: steps per round")
    norm_factor: float | None = Field(
        default=None,
        ge=1,
        description="updates longer than this many times the median one are shortened to it",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict,
        exclude_if=lambda options: not options,
        description="options of rules that have no key of their own here",
    )


def load_rule(spec: AggregationRule) -> Callable[..., Any]:
    """Return the rule of a study as a function of rows, weights and centre, all by name.

    A rule is a function of any of: `rows` (n, d), the updates of n sites; `weights` (n,);
    `centre` (d,), the aggregate of the round before; and keys of `training.aggregation` and its
    `options`. It returns the aggregate (d,); all are float64.

    Raises:
        ConfigError: There is no such rule, or `options` are not those of its arguments.
    """
    rule = RULES.get(spec.rule, where="training.aggregation.rule").load()
    arguments = signature(rule).parameters
    settings = {**spec.model_dump(exclude={"rule", "norm_factor", "options"}), **spec.options}
    required = {n for n, argument in arguments.items() if argument.default is Parameter.empty}
    unknown, missing = set(spec.options) - set(arguments), required - set(settings) - ROUND
    if unknown or missing:
        raise ConfigError(
            f"the options of rule '{spec.rule}' are wrong",
            where="training.aggregation.options",
            why=f"unknown: {', '.join(sorted(unknown)) or 'none'}; "
            f"missing: {', '.join(sorted(missing)) or 'none'}",
            cure=f"it takes {', '.join(sorted(set(arguments) - ROUND)) or 'no options'}",
        )
    options = {name: value for name, value in settings.items() if name in arguments}

    def combine(**of_round: Any) -> Any:
        return rule(**{n: v for n, v in of_round.items() if n in arguments}, **options)

    return combine


def stays_local(parameter: str, patterns: Sequence[str]) -> bool:
    """Return whether a parameter is kept by every site, by the patterns of `stay_local`.

    Example:
        >>> stays_local("fusion.norm.weight", ["*norm*"]), stays_local("heads.w", ["*norm*"])
        (True, False)
    """
    return any(fnmatchcase(parameter, pattern) for pattern in patterns)


def check_method(plan: TrainingPlan, mode: Mode, groups: int) -> None:
    """Refuse methods that contradict each other or the privacy mode and its groups.

    Raises:
        ValueError: Saying which two keys exclude each other, and why.
    """
    rule, local = plan.aggregation, plan.local
    additive = is_additive(rule.rule)
    if mode == "distributed" and groups == 1 and (not additive or rule.norm_factor is not None):
        raise ValueError(
            "training.aggregation: mode 'distributed' opens only the sum of all updates, so no "
            "rule can look at one; use rule 'mean', privacy.groups, or mode 'local'"
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
            "training patients without noise would reveal them"
        )
    if mode == "local" and (local.control_variates or local.modality_dropout or plan.stay_local):
        raise ValueError(
            "privacy.mode 'local' adds noise to every step of the whole model at once; leave out "
            "control_variates, modality_dropout and stay_local, or use mode none"
        )
    if local.control_variates and local.optimizer != "sgd":
        raise ValueError(
            "training.local.control_variates corrects plain gradient steps; use optimizer: sgd"
        )
    if plan.schedule == "cyclic" and (plan.server.name != "average" or not additive):
        raise ValueError(
            "training.schedule: cyclic passes one site's model on unchanged; use server.name: "
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
