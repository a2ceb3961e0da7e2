"""Server optimisers: how the aggregated direction moves the global model.

Reddi et al., Adaptive Federated Optimization, 2021 (algorithm 2): with pseudo-gradient d_t, the
direction of *descent* (a mean delta, or minus a mean gradient),

    m_t = beta1 m_{t-1} + (1 - beta1) d_t
    adagrad  v_t = v_{t-1} + d_t^2
    yogi     v_t = v_{t-1} - (1 - beta2) d_t^2 sign(v_{t-1} - d_t^2)
    adam     v_t = beta2 v_{t-1} + (1 - beta2) d_t^2
    x_{t+1} = x_t + lr m_t / (sqrt(v_t) + tau)

Without bias correction v starts at tau^2, as there. With it (Kingma and Ba, 2015) v starts at 0,
m is divided by 1 - beta1^t and, for adam and yogi, v by 1 - beta2^t. `sgd` is heavy-ball
momentum m_t = beta1 m_{t-1} + d_t; `average` adds the mean delta itself (FedAvg).

A parameter without a direction this round (no site has its modality) keeps value and moments;
t counts its own steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.study.study import ServerOptimizer
from common.wire import Arrays, part_of, prefixed

Float = npt.NDArray[np.float64]


@dataclass
class OptimizerState:
    """Moments and step counts of every parameter, float64; part of each checkpoint."""

    first: Arrays = field(default_factory=dict)
    second: Arrays = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def to_arrays(self) -> Arrays:
        """Return the state as named arrays: `first/<name>`, `second/<name>`, `steps/<name>`."""
        counts = {name: np.array([t], np.int64) for name, t in self.steps.items()}
        moments = prefixed("first/", self.first) | prefixed("second/", self.second)
        return moments | prefixed("steps/", counts)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "OptimizerState":
        """Return the state that `to_arrays` wrote; other names are ignored."""
        counts = {name: int(value[0]) for name, value in part_of(arrays, "steps/").items()}
        return cls(part_of(arrays, "first/"), part_of(arrays, "second/"), counts)


_SECOND_MOMENTS: dict[str, Callable[[Float, Float, float], Float]] = {
    "adam": lambda second, squared, beta2: beta2 * second + (1 - beta2) * squared,
    "yogi": lambda second, squared, beta2: (
        second - (1 - beta2) * squared * np.sign(second - squared)
    ),
    "adagrad": lambda second, squared, _: second + squared,
}


def apply_direction(
    parameters: Arrays, direction: Arrays, spec: ServerOptimizer, state: OptimizerState
) -> Arrays:
    """Return the next float32 parameters and update `state` in place.

    Args:
        parameters: Current global model, float32.
        direction: Direction of descent by parameter name, float64; may lack parameters.
        spec: Name and constants of the optimiser.
        state: Moments; changed in place.
    """
    new_parameters = dict(parameters)
    for name in sorted(direction):
        step = _step_of(name, direction[name].astype(np.float64), spec, state)
        new_parameters[name] = (parameters[name].astype(np.float64) + step).astype(np.float32)
    return new_parameters


def _step_of(name: str, direction: Float, spec: ServerOptimizer, state: OptimizerState) -> Float:
    if spec.name == "average":
        return direction
    t = state.steps[name] = state.steps.get(name, 0) + 1
    first = state.first.get(name, np.zeros_like(direction))
    if spec.name == "sgd":
        state.first[name] = spec.beta1 * first + direction
        return spec.lr * state.first[name]
    start = 0.0 if spec.bias_correction else spec.tau**2
    second = state.second.get(name, np.full_like(direction, start))
    first = spec.beta1 * first + (1 - spec.beta1) * direction
    second = _SECOND_MOMENTS[spec.name](second, direction**2, spec.beta2)
    state.first[name], state.second[name] = first, second
    if spec.bias_correction:
        first = first / (1 - spec.beta1**t)
        second = second if spec.name == "adagrad" else second / (1 - spec.beta2**t)
    step: Float = spec.lr * first / (np.sqrt(second) + spec.tau)
    return step
