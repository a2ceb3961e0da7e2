"""What a scenario holds, in words and for `--json`."""

from __future__ import annotations

from typing import Any

from common.study.catalogue import is_additive
from simulations.scenario.scenario import Arm, Scenario


def arm_rows(scenario: Scenario) -> list[list[object]]:
    """Return (name, kind, what is special) of every arm."""
    return [[arm.name, arm.kind, special(arm) or "-"] for arm in scenario.arms]


def scenario_facts(scenario: Scenario) -> dict[str, Any]:
    """Return name, title, sizes and arms of a scenario."""
    return {
        "name": scenario.name,
        "title": scenario.title,
        "seeds": scenario.seeds,
        "folds": scenario.folds.count,
        "reference": scenario.reference,
        "arms": [
            {"name": arm.name, "kind": arm.kind, "special": special(arm)} for arm in scenario.arms
        ],
    }


def special(arm: Arm) -> str:
    """Return in words where an arm departs from its scenario; empty if nowhere."""
    told = []
    if arm.features is not None:
        told.append(f"features {', '.join(arm.features)}")
    if arm.model is not None:
        told.append(f"model {arm.model.name}")
    if arm.training is not None:
        told += _training(arm)
    if arm.privacy is not None:
        plan = arm.privacy
        budget = f" epsilon {plan.epsilon:g}" if plan.is_private else ""
        told.append(f"privacy {plan.mode}{budget}")
    met = arm.circumstances.model_dump(exclude_defaults=True)
    told += [f"{name} {_value(value)}" for name, value in met.items()]
    return "; ".join(told)


def _training(arm: Arm) -> list[str]:
    assert arm.training is not None
    plan, local = arm.training, arm.training.local
    told = [f"{plan.rounds} rounds", f"server {plan.server.name}"]
    if local.kind == "epochs":
        told.append("FedProx" if local.proximal_mu else "local epochs")
    if local.control_variates:
        told.append("SCAFFOLD")
    if plan.schedule == "cyclic":
        told.append("one site a round")
    if plan.stay_local:
        told.append(f"{', '.join(plan.stay_local)} stay at the site")
    if plan.personal is not None:
        told.append(f"personal models ({plan.personal.kind})")
    if not is_additive(plan.aggregation.rule):
        told.append(plan.aggregation.rule)
    if plan.aggregation.norm_factor is not None:
        told.append("norm bound")
    return told


def _value(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)
