"""Write the parameters of a model to a file, as somebody outside would."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from common.contract import sha256_hex


def write_weights(model: nn.Module, path: Path) -> tuple[Path, str]:
    """Write all parameters, trained or frozen; return the file and its SHA-256."""
    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}, path)
    return path, sha256_hex(path.read_bytes())
