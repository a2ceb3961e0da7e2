"""Train local rounds with the state that a hospital keeps for itself; mode none.

- Parameters that stay local (FedBN; Li et al., 2021) are trained here and never sent.
- Control variates (SCAFFOLD, option II; Karimireddy et al., 2020) take the drift of this site
  out of every step: gradient - c_i + c, and after K steps of size lr
  c_i <- c_i - c - delta / (K lr).
- A personal model (Ditto; Li et al., 2021) is trained beside the global one and pulled to it;
  or the final global model is trained on here once (fine-tuning).
"""

from typing import Any

import numpy as np

from client.agent.open_run import OpenRun
from client.training.train import LocalResult, train_epochs
from common.models.base.parameters import load_arrays, to_arrays
from common.protocol.protocol import TrainRequest, control_part, model_part
from common.study.federated_method import stays_local
from common.wire import Arrays

STAY, CONTROL_VARIATE, PERSONAL = "stay_local", "control_variate", "personal"


def train_locally(run: OpenRun, request: TrainRequest) -> LocalResult:
    """Return what one round of local training changed; keeps what stays here.

    Raises:
        ProtocolError: The model does not fit the study.
        DataError: There is no training patient, or the loss is not finite.
    """
    model = model_part(request.arrays)
    local_before = run.memory.before(STAY, request.round)
    load_arrays(run.model, {**model, **local_before})
    if run.study.training.local.control_variates:
        result = _corrected(run, request)
    else:
        result = _epochs(run, request.round)
    patterns = run.study.training.stay_local
    if patterns:
        after = {n: a for n, a in to_arrays(run.model).items() if stays_local(n, patterns)}
        run.memory.keep(STAY, request.round, local_before, after)
    personal = run.study.training.personal
    if personal is not None and personal.kind == "ditto":
        own = run.memory.before(PERSONAL, request.round)
        run.memory.keep(
            PERSONAL, request.round, own, _trained_on(run, own or model, model, request.round)
        )
    return result


def own_model(run: OpenRun, arrays: Arrays, *, personal: bool) -> Arrays:
    """Return the model this hospital uses for its patients.

    Args:
        run: The run.
        arrays: The global model.
        personal: Its personal model instead; the global one with the hospital's own parameters
            otherwise.
    """
    plan = run.study.training.personal
    if not personal or plan is None:
        return {**arrays, **run.memory.latest(STAY)}
    if plan.kind == "ditto":
        return run.memory.latest(PERSONAL) or arrays
    return _trained_on(run, arrays, arrays, run.study.training.rounds + 1)


def _corrected(run: OpenRun, request: TrainRequest) -> LocalResult:
    last_counted = request.counted.get(run.site_id, 0)
    own = run.memory.before(CONTROL_VARIATE, request.round, counted=last_counted)
    common = control_part(request.arrays)
    zero = {name: np.zeros(shape, np.float32) for name, shape in run.shapes.items()}
    correction = {n: common.get(n, zero[n]) - own.get(n, zero[n]) for n in zero}
    result = _epochs(run, request.round, correction=correction)
    scale = np.float32(result.steps * run.study.training.local.lr)
    change = {n: -correction[n] - result.delta[n] / scale for n in zero}
    run.memory.keep(CONTROL_VARIATE, request.round, own, change)
    return result


def _trained_on(run: OpenRun, start: Arrays, anchor: Arrays, number: int) -> Arrays:
    plan = run.study.training.personal
    load_arrays(run.model, start)
    _epochs(run, number, plan=plan.local if plan else None, anchor=anchor)
    return to_arrays(run.model)


def _epochs(run: OpenRun, number: int, **options: Any) -> LocalResult:
    return train_epochs(run.model, run.train, run.study, round=number, device=run.device, **options)
