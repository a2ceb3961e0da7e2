"""Registry of image encoders: input size, normalisation, width, licence, source of weights.

One encoder is embedded (installed with pip). The others are not ours to ship: a hospital gets
the weights from their authors and puts one ONNX file on its disk, whose SHA-256 is in the
study (`extractor.params.sha256`), so that no two hospitals can mix encoders.

The form required of such a file, for every encoder alike:

* one input, (N, 3, H, W) float32 or float16, already scaled to 0..1 and normalised with `mean`
  and `std` below, or (N, H, W, 3) uint8 when the file normalises by itself; N must be free;
* one output (N, dim), pooled. `torch.onnx.export(model, images, "uni.onnx", dynamic_axes=...)`
  writes it. Files above 2 GB keep their tensors in a second file beside the first; the digest
  is then that of both: `cat uni2_h.onnx uni2_h.onnx.data | sha256sum`.
"""

from dataclasses import dataclass

from common.registry import Registry

_NON_COMMERCIAL = "CC BY-NC-ND 4.0, on request from the authors"


@dataclass(frozen=True)
class EncoderEntry:
    """What must be known of an encoder to use it rightly.

    Attributes:
        name: Key in the registry and in `extractor.params.encoder`.
        dim: Width of a feature row.
        input_px: Side of the square input, pixels.
        licence: Under which the weights may be used.
        note: What else the weights file must do.
        mean: Per channel (R, G, B), in 0..1 units; ImageNet's unless stated.
        std: Per channel (R, G, B), in 0..1 units.
        embedded: True if the weights are installed with this program.
    """

    name: str
    dim: int
    input_px: int
    licence: str
    note: str = ""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    embedded: bool = False


ENCODERS = Registry(
    "encoder",
    (
        EncoderEntry(
            name="efficientnet_lite0",
            dim=1280,
            input_px=224,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            licence="Apache-2.0",
            embedded=True,
            note="ImageNet weights; not trained on tissue",
        ),
        EncoderEntry(
            "resnet50_trunc", 1024, 224, "BSD-3-Clause", "output of stage 3, average pooled"
        ),
        EncoderEntry("uni", 1024, 224, _NON_COMMERCIAL),
        EncoderEntry("uni2_h", 1536, 224, _NON_COMMERCIAL),
        EncoderEntry(
            name="conch",
            dim=512,
            input_px=448,
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
            licence=_NON_COMMERCIAL,
            note="image tower without the contrastive projection; tiles of 512 px",
        ),
        EncoderEntry("conch_v1_5", 768, 448, _NON_COMMERCIAL, "tiles of 512 px"),
        EncoderEntry("ctranspath", 768, 224, "GPL-3.0", "its own stem instead of patch embedding"),
        EncoderEntry(
            "virchow2", 2560, 224, _NON_COMMERCIAL, "class token beside the mean of patch tokens"
        ),
        EncoderEntry("gigapath", 1536, 224, "Apache-2.0, research use as its card says"),
    ),
)
"""Encoders by the name in `extractor.params.encoder`."""


def encoder_entry(name: str) -> EncoderEntry:
    """Return the entry of an encoder.

    Raises:
        ConfigError: There is no such encoder; the valid names are listed.
    """
    return ENCODERS.get(name, where="extractor.params.encoder")
