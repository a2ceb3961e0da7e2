"""The published federated strategies, on the published protocol: 5 rounds, 100 updates per site.

FedAvg (McMahan et al., 2017), FedProx (Li et al., 2020), SCAFFOLD (Karimireddy et al., 2020),
FedAdam, FedYogi, FedAdagrad (Reddi et al., 2021). Site optimiser: SGD without momentum. Updates
are weighted by training patients. The server optimisers are the product's, without bias correction.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from common.study.study import ServerOptimizer
from server.aggregate.optimizers import OptimizerState, apply_direction
from simulations.benchmarks.flamby.protocol import (
    FlambyData,
    batches,
    cox_loss,
    endless,
    initial_model,
)

ROUNDS, UPDATES = 5, 100
Parameters = list[Tensor]


def _server(name: Literal["average", "adam", "yogi", "adagrad"], lr: float) -> ServerOptimizer:
    return ServerOptimizer(name=name, lr=lr, bias_correction=False)


AVERAGE = _server("average", 1.0)


@dataclass(frozen=True)
class Strategy:
    """Hyper-parameters of one published strategy."""

    name: str
    lr: float
    server: ServerOptimizer = AVERAGE
    mu: float = 0.0
    control_variates: bool = False


STRATEGIES = (
    Strategy("fedavg", 0.1),
    Strategy("fedprox", 0.1, mu=0.1),
    Strategy("scaffold", 0.01, control_variates=True),
    Strategy("fedadam", 0.01, _server("adam", 0.1)),
    Strategy("fedyogi", 0.01, _server("yogi", 0.1)),
    Strategy("fedadagrad", 0.01, _server("adagrad", 1.0)),
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
    """Return the global model after all rounds; batches continue from round to round."""
    model = initial_model(seed)
    torch.manual_seed(seed)
    total = sum(len(patients) for patients in data.train)
    zero = [torch.zeros_like(p) for p in model.parameters()]
    sites = [
        Site(endless(batches(p)), len(p) / total, [z.clone() for z in zero]) for p in data.train
    ]
    control, state = [z.clone() for z in zero], OptimizerState()
    for _ in range(ROUNDS):
        moves = [train_site(strategy, model, site, control, updates) for site in sites]
        deltas, shifts = zip(*moves, strict=True)
        mean = weighted(deltas, [site.weight for site in sites])
        named = dict(model.state_dict())
        start = {name: value.numpy() for name, value in named.items()}
        direction = {name: d.numpy() for name, d in zip(named, mean, strict=True)}
        after = apply_direction(start, direction, strategy.server, state)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in after.items()})
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


def weighted(parts: Sequence[Parameters], weights: Sequence[float]) -> Parameters:
    """Return the weighted sum of parameter lists."""
    return [
        torch.stack([w * part[i] for w, part in zip(weights, parts, strict=True)]).sum(0)
        for i in range(len(parts[0]))
    ]
