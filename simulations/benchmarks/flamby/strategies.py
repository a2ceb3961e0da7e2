"""The published federated strategies, on the published protocol: 5 rounds, 100 updates per site.

FedAvg (McMahan et al., 2017), FedProx (Li et al., 2020), SCAFFOLD (Karimireddy et al., 2020),
FedAdam, FedYogi, FedAdagrad (Reddi et al., 2021). Site optimiser: SGD without momentum. Updates
are weighted by training patients. The server optimisers have no bias correction.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from simulations.benchmarks.flamby.protocol import (
    FlambyData,
    batches,
    cox_loss,
    endless,
    initial_model,
)

ROUNDS, UPDATES = 5, 100
Rule = Literal["average", "adam", "yogi", "adagrad"]
Parameters = list[Tensor]


@dataclass(frozen=True)
class Strategy:
    """Hyper-parameters of one published strategy."""

    name: str
    lr: float
    rule: Rule = "average"
    server_lr: float = 1.0
    mu: float = 0.0
    control_variates: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    tau: float = 1e-8


STRATEGIES = (
    Strategy("fedavg", 0.1),
    Strategy("fedprox", 0.1, mu=0.1),
    Strategy("scaffold", 0.01, control_variates=True),
    Strategy("fedadam", 0.01, rule="adam", server_lr=0.1),
    Strategy("fedyogi", 0.01, rule="yogi", server_lr=0.1),
    Strategy("fedadagrad", 0.01, rule="adagrad", server_lr=1.0),
)


@dataclass
class Site:
    """One region: its endless batches, its weight, its control variate."""

    stream: Iterator[tuple[Tensor, ...]]
    weight: float
    control: Parameters


def train_federated(
    strategy: Strategy, data: FlambyData, seed: int, *, updates: int = UPDATES
) -> nn.Linear:
    """Return the global model after all rounds; batches go on from round to round."""
    model = initial_model(seed)
    torch.manual_seed(seed)
    total = sum(len(patients) for patients in data.train)
    zero = [torch.zeros_like(p) for p in model.parameters()]
    sites = [
        Site(endless(batches(p)), len(p) / total, [z.clone() for z in zero]) for p in data.train
    ]
    server = ServerState([z.clone() for z in zero], [z.clone() for z in zero])
    control = [z.clone() for z in zero]
    for _ in range(ROUNDS):
        deltas, shifts = [], []
        for site in sites:
            delta, shift = train_site(strategy, model, site, control, updates)
            deltas.append(delta)
            shifts.append(shift)
        weights = [site.weight for site in sites]
        step = server.step(strategy, weighted(deltas, weights))
        with torch.no_grad():
            for parameter, change in zip(model.parameters(), step, strict=True):
                parameter.add_(change)
        if strategy.control_variates:
            moved = weighted(shifts, [1 / len(sites)] * len(sites))
            control = [c + m for c, m in zip(control, moved, strict=True)]
    return model


def train_site(
    strategy: Strategy, model: nn.Linear, site: Site, control: Parameters, updates: int
) -> tuple[Parameters, Parameters]:
    """Return (delta of the model, change of the site's control variate) after some updates."""
    local = copy.deepcopy(model)
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(updates):
        features, truth = next(site.stream)
        local.zero_grad()
        cox_loss(local(features), truth).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for i, parameter in enumerate(local.parameters()):
                gradient = parameter.grad if parameter.grad is not None else torch.zeros(())
                if strategy.mu:
                    gradient = gradient + strategy.mu * (parameter - start[i])
                if strategy.control_variates:
                    gradient = gradient - site.control[i] + control[i]
                parameter.sub_(strategy.lr * gradient)
    delta = [p.detach() - s for p, s in zip(local.parameters(), start, strict=True)]
    shift = [-c - d / (updates * strategy.lr) for c, d in zip(control, delta, strict=True)]
    if strategy.control_variates:
        site.control = [own + s for own, s in zip(site.control, shift, strict=True)]
    return delta, shift


@dataclass
class ServerState:
    """Moments of the server optimiser."""

    first: Parameters
    second: Parameters

    def step(self, strategy: Strategy, delta: Parameters) -> Parameters:
        """Return the change of the global model for a mean delta."""
        if strategy.rule == "average":
            return [strategy.server_lr * d for d in delta]
        b1, b2 = strategy.beta1, strategy.beta2
        change = []
        for i, d in enumerate(delta):
            square = d * d
            self.first[i] = b1 * self.first[i] + (1 - b1) * d
            v = self.second[i]
            if strategy.rule == "adam":
                self.second[i] = b2 * v + (1 - b2) * square
            elif strategy.rule == "yogi":
                self.second[i] = v - (1 - b2) * square * torch.sign(v - square)
            else:
                self.second[i] = v + square
            scale = self.second[i].sqrt() + strategy.tau
            change.append(strategy.server_lr * self.first[i] / scale)
        return change


def weighted(parts: list[Parameters], weights: list[float]) -> Parameters:
    """Return the weighted sum of parameter lists."""
    return [
        torch.stack([w * part[i] for w, part in zip(weights, parts, strict=True)]).sum(0)
        for i in range(len(parts[0]))
    ]
