"""Choose the device on which a hospital computes."""

from typing import Literal

import torch

from common.errors import ConfigError


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a site policy; `auto` takes CUDA where there is one.

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
    return torch.device("cuda" if wish != "cpu" and available else "cpu")
