"""Run frozen image encoders: ONNX Runtime on a CPU, torch on CUDA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from client.extract.encoders.encoder_registry import EncoderEntry, encoder_entry
from client.extract.encoders.encoder_weights import locate_weights, verified_digest
from client.extract.encoders.onnx_export import cached_efficientnet_lite0
from common.errors import ConfigError
from common.optional import require

Device = Literal["auto", "cpu", "cuda"]

_preferred: list[Device] = ["auto"]


class TileEncoder(Protocol):
    """Turns images into feature rows; the same rows on every device within 1e-3.

    Attributes:
        name: Key in the encoder registry.
        dim: Width of a feature row.
        sha256: Digest of the weights, hex.
        input_px: Side of the square input, pixels; images of another size are resized to it.
    """

    name: str
    dim: int
    sha256: str
    input_px: int

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features (N, dim) float32 of RGB images (N, H, W, 3) uint8."""
        ...


def prefer_device(device: Device) -> None:
    """Set what `auto` means in this process, from the hospital's policy."""
    _preferred[0] = device


def resolve_device(device: Device = "auto") -> Literal["cpu", "cuda"]:
    """Return the device to use; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: CUDA is requested and there is none.
    """
    name = _preferred[0] if device == "auto" else device
    has_driver = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
    if name == "cpu" or (name == "auto" and not has_driver):
        return "cpu"  # without importing torch
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise ConfigError(
            "no CUDA device is usable",
            where="device",
            cure="set device: cpu or auto in site.yaml, or install a driver that torch supports",
        )
    return "cpu"


def encoder_digest(name: str, params: Mapping[str, object]) -> str:
    """Return the SHA-256 of the weights `load_encoder` would use, without loading them.

    Raises:
        ConfigError: As `load_encoder`.
    """
    entry = encoder_entry(name)
    return verified_digest(entry, locate_weights(entry, params), params)


def load_encoder(
    name: str, params: Mapping[str, object], device: Device = "auto", *, threads: int = 1
) -> TileEncoder:
    """Return a ready encoder.

    Args:
        name: Key in the encoder registry, e.g. `efficientnet_lite0`.
        params: `sha256` the weights must have (may be left out for the embedded encoder) and
            `weights`, the file; see `locate_weights`. Other keys are ignored.
        device: `auto` follows `prefer_device`, then takes CUDA where there is one.
        threads: CPU threads of one encoder; extraction runs many processes of one thread.

    Raises:
        ConfigError: The encoder is unknown, its weights are missing, unreadable, of the wrong
            width or not those of the study, or a library is not installed.
    """
    entry = encoder_entry(name)
    path = locate_weights(entry, params)
    digest = verified_digest(entry, path, params)
    target = resolve_device(device)
    if entry.embedded and target == "cuda":
        return TorchEncoder(entry, digest)
    if entry.embedded:
        path = cached_efficientnet_lite0(digest)
    return OnnxEncoder(entry, path, digest, device=target, threads=threads)


class OnnxEncoder:
    """An encoder run by ONNX Runtime; `encoder_registry` states the form of the file."""

    def __init__(
        self, entry: EncoderEntry, path: Path, sha256: str, *, device: str, threads: int
    ) -> None:
        self.name, self.dim, self.sha256 = entry.name, entry.dim, sha256
        self.input_px = entry.input_px
        self._mean = np.array(entry.mean, np.float32)
        self._std = np.array(entry.std, np.float32)
        self._session = _session(path, device, threads)
        self._input = self._session.get_inputs()[0]
        width = self._session.get_outputs()[0].shape[-1]
        if isinstance(width, int) and width != entry.dim:
            raise ConfigError(
                f"the weights of encoder '{entry.name}' give {width} features, not {entry.dim}",
                where=str(path),
                why="the file ends at another layer than the encoder it claims to be",
                cure=f"export the pooled output of width {entry.dim} ({entry.note or 'no notes'})",
            )

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features (N, dim) float32 of RGB images (N, H, W, 3) uint8."""
        if len(images) == 0:
            return np.zeros((0, self.dim), np.float32)
        pixels: NDArray[Any] = fit_input(images, self.input_px)
        if self._input.type != "tensor(uint8)":
            scaled = (pixels.astype(np.float32) / 255 - self._mean) / self._std
            kind = np.float16 if self._input.type == "tensor(float16)" else np.float32
            pixels = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), kind)
        features = self._session.run(None, {self._input.name: pixels})[0]
        return np.ascontiguousarray(features, np.float32)


class TorchEncoder:
    """The embedded encoder in torch on CUDA, without TF32, so that it equals the CPU's."""

    def __init__(self, entry: EncoderEntry, sha256: str, device: str = "cuda") -> None:
        import torch

        from client.extract.encoders.efficientnet_lite import load_efficientnet_lite0

        self.name, self.dim, self.sha256 = entry.name, entry.dim, sha256
        self.input_px = entry.input_px
        self._device = torch.device(device)
        self._model = load_efficientnet_lite0().to(self._device)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features (N, dim) float32 of RGB images (N, H, W, 3) uint8."""
        import torch

        if len(images) == 0:
            return np.zeros((0, self.dim), np.float32)
        pixels = torch.from_numpy(fit_input(images, self.input_px)).to(self._device)
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            features = self._model(pixels.permute(0, 3, 1, 2).float())
        return np.ascontiguousarray(features.cpu().numpy(), np.float32)


def fit_input(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the images (N, side, side, 3) uint8, resized where they have another size.

    Raises:
        ValueError: They are not (N, H, W, 3) uint8.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
    if images.shape[1:3] == (side, side):
        return np.ascontiguousarray(images)
    cv2 = require("cv2", extra="pathology")
    how = cv2.INTER_AREA if min(images.shape[1:3]) > side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (side, side), interpolation=how) for image in images])


def _session(path: Path, device: str, threads: int) -> Any:
    runtime = require("onnxruntime", extra="pathology")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise ConfigError(
            "the installed ONNX Runtime cannot use CUDA",
            where=str(path),
            cure="pip install onnxruntime-gpu in place of onnxruntime, or set device: cpu",
        )
    try:
        return runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        raise ConfigError(
            "the encoder's file cannot be loaded by ONNX Runtime",
            where=str(path),
            why=" ".join(str(error).split())[:300],
            cure="export it again; a damaged file in the cache folder can be deleted",
        ) from error
