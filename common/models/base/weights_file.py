"""Load weights from a safetensors file that a study names by SHA-256, and note their origin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from common.contract import sha256_hex
from common.errors import ConfigError
from common.models.base.base import ModelOptions
from common.storage.weights_folder import weights_folder


class PretrainedOptions(ModelOptions):
    """Options of a model whose weights, or part of them, may come from a file."""

    weights: str | None = Field(default=None, description="safetensors file of weights")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if (self.weights is None) != (self.sha256 is None):
            raise ValueError("weights and sha256 go together")
        return self

    def load_into(self, model: nn.Module, *, skip: tuple[str, ...] = ()) -> None:
        """Copy the weights into a model, if a file is named; see `load_weights`.

        Raises:
            ConfigError: The file is missing, differs from the digest, or does not fit the model.
        """
        if self.weights is not None and self.sha256 is not None:
            load_weights(model, self.weights, self.sha256, skip=skip)


@dataclass(frozen=True)
class ReadFrom:
    """The file that a parameter was read from."""

    sha256: str
    file: Path


NO_CLAIM: Final = "no claim"
"""Origin of a frozen parameter that nothing depends on, or that is a public random projection."""

_ORIGIN = "tumorboard_origin"


def note_origin(parameter: nn.Parameter, origin: ReadFrom | Literal["no claim"]) -> None:
    """Note on a parameter where its values come from."""
    setattr(parameter, _ORIGIN, origin)


def noted_origin(parameter: nn.Parameter) -> ReadFrom | Literal["no claim"] | None:
    """Return what was noted; None for values drawn by the model's code."""
    origin: ReadFrom | Literal["no claim"] | None = getattr(parameter, _ORIGIN, None)
    return origin


def load_weights(model: nn.Module, path: str, sha256: str, *, skip: tuple[str, ...] = ()) -> None:
    """Copy the weights of a file into a model.

    Args:
        model: Takes the values; the file must hold every parameter not skipped.
        path: Absolute, or relative to `weights_folder()`.
        sha256: Digest that the study states.
        skip: Prefixes of parameters left as they are, e.g. `heads.`.

    Raises:
        ConfigError: The file is missing, differs from the digest, or does not fit the model.
    """
    file = weights_folder() / path
    tensors = _read(file, sha256)
    for name, parameter in model.named_parameters():
        if name.startswith(skip):
            continue
        if name not in tensors or tensors[name].shape != parameter.shape:
            shape = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ConfigError(
                "the weights do not fit the model",
                where=f"{file}: {name}",
                why=f"the model needs shape {tuple(parameter.shape)}, the file has {shape}",
                cure="use the model options the weights were trained with",
            )
        with torch.no_grad():
            parameter.copy_(tensors[name])
        note_origin(parameter, ReadFrom(sha256, file))


def _read(file: Path, sha256: str) -> dict[str, Tensor]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            "the weights file cannot be read",
            where=str(file),
            why=type(error).__name__,
            cure=f"put the file with SHA-256 {sha256} there",
        ) from None
    digest = sha256_hex(data)
    if digest != sha256:
        raise ConfigError(
            "the weights file is not the one of the study",
            where=str(file),
            why=f"its SHA-256 is {digest}, the study names {sha256}",
            cure="get the file the consortium agreed on; other weights give other features",
        )
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise ConfigError(
            "the weights file is not a safetensors file", where=str(file), why=str(error)
        ) from None
