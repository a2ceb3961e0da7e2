"""Choose the device on which a hospital computes."""

import os
from typing import Literal

import torch

from common.errors import ConfigError


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a site policy; `auto` takes CUDA where there is one.

    On CUDA the process computes with repeatable algorithms from then on, where torch has them: two
    passes over the same patient then agree bit by bit.

    Raises:
        ConfigError: CUDA is requested and this machine or installation has none.
    """
    available = torch.cuda.is_available()
    if wish == "cuda" and not available:
        raise ConfigError(
            "CUDA is requested but not available",
            where="site.yaml: device",
            why="no GPU is visible, or the installed torch was built for CPU",
            cure="set device: auto or cpu, or install a CUDA build of torch",
        )
    if wish == "cpu" or not available:
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")
