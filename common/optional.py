"""Import optional libraries when first needed; the error names the extra to install."""

import importlib
from typing import Any

from common.errors import ConfigError


def require(module: str, *, extra: str) -> Any:
    """Return the module `module`, imported now.

    Args:
        module: Import name, dotted if need be, e.g. `SimpleITK`.
        extra: The extra of this distribution that installs it, e.g. `radiology`.

    Raises:
        ConfigError: The module, or something it needs itself, is not installed.

    Example:
        >>> require("json", extra="text").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the library '{module}' is not installed",
            where=f"extra '{extra}'",
            why=f"no module named '{error.name}'",
            cure=f'pip install "tumorboard[{extra}]", or make install in a clone',
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"the library '{module}' is installed but cannot be loaded",
            where=f"extra '{extra}'",
            why=" ".join(str(error).split()),
            cure=f'reinstall it: pip install --force-reinstall "tumorboard[{extra}]"',
        ) from error
