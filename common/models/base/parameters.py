"""Trained parameters as named float32 arrays, the form in which a model travels."""

import numpy as np
import torch
from torch import nn

from common.errors import ErrorCode, ProtocolError
from common.study.modalities import MODALITIES
from common.wire import Arrays

BLOCKS: tuple[str, ...] = (*MODALITIES, "fusion", "heads")
"""First part of every parameter name of a fused model."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in name order."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in sorted(parameters) if parameters[name].requires_grad}


def to_arrays(model: nn.Module) -> Arrays:
    """Return copies of the trained parameters, float32, by name."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True).numpy()
        for name, parameter in trainable(model).items()
    }


def expected_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every trained parameter, by name."""
    return {name: tuple(parameter.shape) for name, parameter in trainable(model).items()}


def load_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Copy arrays into the trained parameters.

    Raises:
        ProtocolError: A name is missing or unknown, or an array has a wrong shape, is not
            floating point, or is not finite; nothing has been copied then.
    """
    parameters = trainable(model)
    _check(arrays, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def block_of(name: str) -> str:
    """Return the block of a parameter: the first part of its name.

    Raises:
        ProtocolError: It is none of `BLOCKS`.

    >>> block_of("pathology.tiles.weight")
    'pathology'
    """
    block = name.partition(".")[0]
    if block not in BLOCKS:
        raise ProtocolError(
            f"parameter '{name}' belongs to no block",
            why=f"names begin with one of {', '.join(BLOCKS)}",
            code=ErrorCode.PAYLOAD,
        )
    return block


def _check(arrays: Arrays, shapes: dict[str, tuple[int, ...]]) -> None:
    def refuse(what: str, where: str, code: ErrorCode = ErrorCode.PAYLOAD) -> ProtocolError:
        cure = "server and sites must run the same study and the same version of tumorboard"
        return ProtocolError(what, where=where, cure=cure, code=code)

    missing, unknown = sorted(shapes.keys() - arrays), sorted(arrays.keys() - shapes)
    if missing or unknown:
        raise refuse(
            f"{len(missing)} parameters are missing and {len(unknown)} are unknown",
            ", ".join((missing + unknown)[:5]),
        )
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            raise refuse(f"the array has shape {array.shape}, the model {shape}", name)
        if not np.issubdtype(array.dtype, np.floating):
            raise refuse(f"the array is {array.dtype}, not floating point", name)
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise refuse("the array holds values that are not finite", name, ErrorCode.NOT_FINITE)
