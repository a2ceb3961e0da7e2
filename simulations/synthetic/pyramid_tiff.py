"""Write pyramidal tiled TIFF with JPEG tiles and a physical resolution, as slide scanners do.

Written byte by byte after the TIFF 6.0 specification (Adobe, 1992) and its Technical Note 2
(JPEG tiles, compression 7): common writers need a native codec package for JPEG tiles, and the
bytes here depend on the pixels alone. OpenSlide opens the result as `generic-tiled-tiff`, or as
`aperio` when the description starts like Aperio's; both report `openslide.mpp-x`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.optional import require

TILE = 256
JPEG_QUALITY = 88

_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2
_FORMAT = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _ASCII: "s"}


@dataclass(frozen=True)
class _Tag:
    number: int
    kind: int
    values: tuple[int, ...] | bytes

    def packed(self) -> tuple[int, bytes]:
        """Return (count, bytes) of the value."""
        if isinstance(self.values, bytes):
            return len(self.values), self.values
        count = len(self.values) // (2 if self.kind == _RATIONAL else 1)
        code = _FORMAT[self.kind][0]
        return count, struct.pack(f"<{len(self.values)}{code}", *self.values)


def write_pyramid(
    path: Path,
    pixels: npt.NDArray[np.uint8],
    *,
    um_per_px: float | None,
    description: str,
    downsamples: Sequence[int] = (1, 4),
) -> None:
    """Write a slide, one TIFF directory a level.

    Args:
        path: File to write; replaced.
        pixels: (H, W, 3) RGB of level 0.
        um_per_px: Micrometres per pixel of level 0; None leaves the resolution out, as some
            converters do.
        description: Text of the ImageDescription tag.
        downsamples: Factor of each level; the first is 1, all divide H and W.

    Raises:
        ConfigError: The image does not divide by a downsample factor.
    """
    cv2 = require("cv2", extra="pathology")
    height, width = pixels.shape[:2]
    if any(height % factor or width % factor for factor in downsamples):
        raise ConfigError(
            "the slide does not divide into its levels",
            where=str(path),
            why=f"{width} x {height} px, downsamples {list(downsamples)}",
            cure="choose a slide side that is a multiple of the largest downsample factor",
        )
    body = bytearray(struct.pack("<2sHI", b"II", 42, 0))
    link = 4
    for factor in downsamples:
        size = (width // factor, height // factor)
        level = pixels if factor == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        offsets, counts = _append_tiles(body, level)
        resolution = None if um_per_px is None else um_per_px * factor
        tags = _tags(size, offsets, counts, resolution, description, is_reduced=factor != 1)
        link = _append_directory(body, tags, link)
    path.write_bytes(bytes(body))


def _append_tiles(
    body: bytearray, level: npt.NDArray[np.uint8]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    cv2 = require("cv2", extra="pathology")
    offsets, counts = [], []
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    for top in range(0, level.shape[0], TILE):
        for left in range(0, level.shape[1], TILE):
            tile = level[top : top + TILE, left : left + TILE]
            below, right = TILE - tile.shape[0], TILE - tile.shape[1]
            if below or right:
                tile = np.pad(tile, ((0, below), (0, right), (0, 0)), mode="edge")
            jpeg = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), options)[1]
            offsets.append(len(body))
            counts.append(len(jpeg))
            body += jpeg.tobytes()
            body += b"\0" * (len(body) % 2)
    return tuple(offsets), tuple(counts)


def _tags(
    size: tuple[int, int],
    offsets: tuple[int, ...],
    counts: tuple[int, ...],
    um_per_px: float | None,
    description: str,
    *,
    is_reduced: bool,
) -> list[_Tag]:
    tags = [
        _Tag(254, _LONG, (int(is_reduced),)),  # NewSubfileType: 1 = reduced-resolution copy
        _Tag(256, _LONG, (size[0],)),
        _Tag(257, _LONG, (size[1],)),
        _Tag(258, _SHORT, (8, 8, 8)),
        _Tag(259, _SHORT, (7,)),  # JPEG
        _Tag(262, _SHORT, (6,)),  # YCbCr
        _Tag(270, _ASCII, description.encode("ascii") + b"\0"),
        _Tag(277, _SHORT, (3,)),
        _Tag(284, _SHORT, (1,)),
        _Tag(322, _SHORT, (TILE,)),
        _Tag(323, _SHORT, (TILE,)),
        _Tag(324, _LONG, offsets),
        _Tag(325, _LONG, counts),
        _Tag(530, _SHORT, (2, 2)),  # chroma subsampling of the JPEG encoder
    ]
    if um_per_px is not None:
        per_cm = Fraction(10_000 / um_per_px).limit_denominator(1000)
        pair = (per_cm.numerator, per_cm.denominator)
        tags += [_Tag(282, _RATIONAL, pair), _Tag(283, _RATIONAL, pair), _Tag(296, _SHORT, (3,))]
    return sorted(tags, key=lambda tag: tag.number)


def _append_directory(body: bytearray, tags: list[_Tag], link: int) -> int:
    """Append one directory, point the previous link at it, return where its own link stands."""
    entries = []
    for tag in tags:
        count, data = tag.packed()
        if len(data) > 4:
            body += b"\0" * (len(body) % 2)
            place = struct.pack("<I", len(body))
            body += data
        else:
            place = data.ljust(4, b"\0")
        entries.append(struct.pack("<HHI", tag.number, tag.kind, count) + place)
    body += b"\0" * (len(body) % 2)
    struct.pack_into("<I", body, link, len(body))
    body += struct.pack("<H", len(entries)) + b"".join(entries)
    body += struct.pack("<I", 0)
    return len(body) - 4
