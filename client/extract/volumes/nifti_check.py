"""Find damaged NIfTI files, of which ITK's reader reads missing bytes and NaN as zeros.

Layout of the header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from common.errors import ExtractionError

_CHUNK_BYTES = 1 << 24
_FLOATS = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class NiftiLayout:
    """Where the voxels lie in the (uncompressed) file.

    Attributes:
        offset: First byte of the voxels.
        n_bytes: How many bytes they take.
        float_type: numpy type of floating-point voxels, None for others.
    """

    offset: int
    n_bytes: int
    float_type: np.dtype[np.floating] | None


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file that is cut short, damaged, or holds NaN or infinite voxels.

    Args:
        path: `.nii` or `.nii.gz`.

    Raises:
        ExtractionError: As above, with the number of bytes or voxels.
    """
    try:
        with _opened(path) as stream:
            layout = _layout(stream, path)
            _check_voxels(stream, layout, path)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise _damaged(path, " ".join(str(error).split())) from error


def _opened(path: Path) -> IO[bytes]:
    is_gzip = path.name.lower().endswith(".gz")
    return cast("IO[bytes]", gzip.open(path)) if is_gzip else path.open("rb")


def _damaged(path: Path, why: str) -> ExtractionError:
    return ExtractionError(
        "the NIfTI file is damaged or cut short",
        where=str(path),
        why=why,
        cure="copy or convert it again",
    )


def _layout(stream: IO[bytes], path: Path) -> NiftiLayout:
    head = stream.read(540)
    for order in "<>":
        size = struct.unpack(f"{order}i", head[:4])[0]
        if size == 348:
            dims = struct.unpack(f"{order}8h", head[40:56])
            kind, bits = struct.unpack(f"{order}2h", head[70:74])
            offset = int(struct.unpack(f"{order}f", head[108:112])[0])
        elif size == 540:
            dims = struct.unpack(f"{order}8q", head[16:80])
            kind, bits = struct.unpack(f"{order}2h", head[12:16])
            offset = struct.unpack(f"{order}q", head[168:176])[0]
        else:
            continue
        n_voxels = math.prod(max(n, 1) for n in dims[1 : 1 + max(0, min(dims[0], 7))])
        number = np.dtype(f"{order}{_FLOATS[kind]}") if kind in _FLOATS else None
        return NiftiLayout(offset, n_voxels * bits // 8, number)
    raise _damaged(path, "it does not start with a NIfTI header")


def _check_voxels(stream: IO[bytes], layout: NiftiLayout, path: Path) -> None:
    stream.seek(layout.offset)
    left, bad = layout.n_bytes, 0
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            why = f"{layout.n_bytes - left} of {layout.n_bytes} bytes of voxels are there"
            raise _damaged(path, why)
        left -= len(chunk)
        if layout.float_type is not None:
            whole = len(chunk) - len(chunk) % layout.float_type.itemsize
            bad += int((~np.isfinite(np.frombuffer(chunk[:whole], layout.float_type))).sum())
    if path.name.lower().endswith(".gz"):
        stream.read(1)  # reaches the end, where the checksum is compared
    if bad:
        raise not_finite(path, bad)


def not_finite(path: Path, n_voxels: int) -> ExtractionError:
    """Return the error for a volume with NaN or infinite voxels."""
    return ExtractionError(
        f"{n_voxels} voxels are NaN or infinite",
        where=str(path),
        why="they would spread over the whole volume when it is filtered",
        cure="find the step that made them; write real numbers, for example 0 outside",
    )
