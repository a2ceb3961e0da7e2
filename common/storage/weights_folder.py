"""Name the folder of pretrained weights on this machine."""

import os
from pathlib import Path


def weights_folder() -> Path:
    """Return `$XDG_DATA_HOME/tumorboard/weights`, by default below `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "tumorboard" / "weights"
