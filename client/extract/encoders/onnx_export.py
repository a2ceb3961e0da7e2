"""Write EfficientNet-Lite0 as an ONNX file, once, into the user's cache folder.

The graph is built node by node with batch norm folded into the convolutions (in float64), so it
needs neither tracing nor torch at run time: workers that encode tiles load numpy and ONNX
Runtime only. Input `images` (N, 224, 224, 3) uint8, output `features` (N, 1280) float32.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.contract import sha256_hex
from common.optional import require
from common.storage.atomic_file import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from client.extract.encoders.efficientnet_lite import EfficientNetLite0, SameConv

EXPORT_VERSION = 1
"""Part of the cached file's name; raise when the graph changes."""

_OPSET = 17
_IR_VERSION = 8


def cache_folder() -> Path:
    """Return the user's cache folder of this program (`$XDG_CACHE_HOME` or `~/.cache`)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tumorboard"


def cached_efficientnet_lite0(weights_sha256: str, folder: Path | None = None) -> Path:
    """Return the ONNX file of the installed weights, exporting it when it is not cached yet.

    Its name ends with its own digest, so that a damaged copy is noticed and replaced.

    Args:
        weights_sha256: SHA-256 of the weights file, in hex; names the cached file.
        folder: Cache folder; the user's own by default.

    Raises:
        ConfigError: A library or the weights are not installed.
        ExtractionError: The weights do not fit the network.
    """
    folder = folder or cache_folder()
    stem = f"efficientnet_lite0-v{EXPORT_VERSION}-{weights_sha256[:16]}"
    for path in folder.glob(f"{stem}-*.onnx"):
        if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
            return path
    from client.extract.encoders.efficientnet_lite import (
        load_efficientnet_lite0,  # torch: only here
    )

    data = efficientnet_lite0_onnx(load_efficientnet_lite0())
    path = folder / f"{stem}-{_digest(data)}.onnx"
    write_bytes(path, data)
    return path


def _digest(data: bytes) -> str:
    return sha256_hex(data)[:16]


def efficientnet_lite0_onnx(model: EfficientNetLite0) -> bytes:
    """Return the network as a serialised ONNX model.

    Args:
        model: The network with its weights, in evaluation mode.
    """
    from client.extract.encoders.efficientnet_lite import FEATURE_DIM, INPUT_PX, MEAN, STD

    graph = _Graph(INPUT_PX)
    x = graph.node("Cast", ["images"], to=1)
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.node("Sub", [x, graph.constant(_per_channel(MEAN))])
    x = graph.node("Div", [x, graph.constant(_per_channel(STD))])
    x = graph.relu6(graph.convolution(x, model._conv_stem, model._bn0))
    for block in model._blocks:
        x = graph.bottleneck(x, block)
    x = graph.relu6(graph.convolution(x, model._conv_head, model._bn1))
    x = graph.node("GlobalAveragePool", [x])
    graph.node("Flatten", [x], output="features", axis=1)
    return graph.serialise((INPUT_PX, INPUT_PX, 3), FEATURE_DIM)


class _Graph:
    """Nodes and weights of the growing graph; `size` follows the height of the activations."""

    def __init__(self, size: int) -> None:
        self._onnx: Any = require("onnx", extra="pathology")
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self.size = size

    def node(self, op: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = output or f"n{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[np.float32]) -> str:
        """Store a float32 array and return its name."""
        name = f"w{len(self._weights)}"
        self._weights.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def convolution(self, x: str, conv: SameConv, norm: nn.BatchNorm2d) -> str:
        """Append conv and batch norm as one convolution, padded as "SAME"."""
        weight, bias = _folded(conv, norm)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        out = -(-self.size // stride)
        pad = max((out - 1) * stride + kernel - self.size, 0)
        self.size = out
        before, after = pad // 2, pad - pad // 2
        return self.node(
            "Conv",
            [x, self.constant(weight), self.constant(bias)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=conv.groups,
        )

    def relu6(self, x: str) -> str:
        """Append min(max(x, 0), 6)."""
        return self.node(
            "Clip",
            [x, self.constant(np.array(0, np.float32)), self.constant(np.array(6, np.float32))],
        )

    def bottleneck(self, inputs: str, block: Any) -> str:
        """Append one `InvertedBottleneck`."""
        x = inputs
        if block._expand_conv is not None:
            x = self.relu6(self.convolution(x, block._expand_conv, block._bn0))
        x = self.relu6(self.convolution(x, block._depthwise_conv, block._bn1))
        x = self.convolution(x, block._project_conv, block._bn2)
        return self.node("Add", [x, inputs]) if block.has_skip else x

    def serialise(self, input_shape: tuple[int, ...], dim: int) -> bytes:
        """Return the checked model as bytes."""
        onnx = self._onnx
        graph = onnx.helper.make_graph(
            self._nodes,
            "efficientnet_lite0",
            [onnx.helper.make_tensor_value_info("images", 2, ["N", *input_shape])],
            [onnx.helper.make_tensor_value_info("features", 1, ["N", dim])],
            initializer=self._weights,
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="tumorboard",
        )
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data


def _per_channel(values: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


def _folded(
    conv: SameConv, norm: nn.BatchNorm2d
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias of the convolution followed by the (frozen) batch norm."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("batch norm without running statistics cannot be folded")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.double() - mean.double() * scale
    return weight.float().numpy(), bias.float().numpy()
