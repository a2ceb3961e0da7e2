"""Compare the tile encoder with torch, result and speed, and extract a slide twice.

The encoder runs as extraction runs it (ONNX Runtime, one thread, batches of 16) and as plain
torch runs it (evaluation mode, inference mode, one thread, channels first, batches of 32), on
the same real tiles, turn by turn. Speed is tiles per second of processor time, so that other
programs on the machine disturb it little.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.extract.encoders.tile_encoder import load_encoder
from client.extract.slides.tile_extractor import TileExtractor
from client.extract.slides.tiles import plan_tiles
from client.extract.slides.tissue import TissueParams, find_tissue
from client.extract.slides.wsi_reader import SlideReader
from common.cohort.manifest import PatientRow
from common.study.study import ExtractorSpec, FeatureSpec
from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main

DURATION = "about 2 minutes on one core"
NEEDS = ("wsi_small", "he_patches")
_EXTRACTION_BATCH, _TORCH_BATCH = 16, 32


@dataclass(frozen=True)
class ExtractionSize(Size):
    """So many tiles, encoded so often, and which slide is extracted whole."""

    tiles: int = 64
    repeats: int = 5
    slide: str = "*.svs"


FULL, MINIATURE = ExtractionSize(), ExtractionSize(tiles=4, repeats=1, slide="*.tif")


def checks(data: Path, size: ExtractionSize) -> Iterator[Check]:
    """Yield the checks; `data` is the folder of the real data."""
    slides = sorted((data / "wsi_small").glob("*.svs"))
    slides += sorted((data / "he_patches" / "tcga_tiff").glob("*.tif"))
    yield from _physical_size(slides)
    tiles = _tiles(slides, size)
    progress(f"{len(tiles)} tiles of {len(slides)} slides")
    yield from _encoder(tiles, size)
    yield from _whole_slide(next(path for path in slides if path.match(size.slide)))


def _physical_size(slides: list[Path]) -> Iterator[Check]:
    """A tile is 112 um wide on every slide, whatever its resolution."""
    worst, resolutions = 0.0, []
    for path in slides:
        with SlideReader(path) as slide:
            grid = plan_tiles(
                slide,
                find_tissue(slide, TissueParams()),
                tile_px=224,
                um_per_px=0.5,
                min_tissue=0.25,
            )
            resolutions.append(slide.um_per_px)
            worst = max(worst, abs(grid.side_px * slide.um_per_px / 112.0 - 1))
    low, high = min(resolutions), max(resolutions)
    what = "side of a tile against 112 um, worst slide, relative error"
    yield Check(what, worst, 0.005, "<=", f"{len(slides)} slides, {low:g} to {high:g} um per pixel")


def _tiles(slides: list[Path], size: ExtractionSize) -> NDArray[np.uint8]:
    """Return tissue tiles of 224 px at 0.5 um, taken from the slides in turn."""
    tiles: list[NDArray[np.uint8]] = []
    for path in slides:
        with SlideReader(path) as slide:
            tissue = find_tissue(slide, TissueParams())
            grid = plan_tiles(slide, tissue, tile_px=224, um_per_px=0.5, min_tissue=0.25)
            for x, y in grid.corners[:8]:
                tiles.append(slide.read(int(x), int(y), grid.side_px, grid.side_px, (224, 224)))
        if len(tiles) >= size.tiles:
            break
    return np.stack(tiles[: size.tiles])


def _encoder(tiles: NDArray[np.uint8], size: ExtractionSize) -> Iterator[Check]:
    import torch

    from client.extract.encoders.efficientnet_lite import load_efficientnet_lite0

    encoder = load_encoder("efficientnet_lite0", {}, "cpu", threads=1)
    model = load_efficientnet_lite0()
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def ours() -> NDArray[np.float32]:
        return _in_batches(encoder.encode, tiles, _EXTRACTION_BATCH)

    def plain(batch: int) -> NDArray[np.float32]:
        def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
                return np.asarray(model(pixels).numpy())

        return _in_batches(encode, tiles, batch)

    try:
        reference, found = plain(_TORCH_BATCH), ours()  # also warms both up
        rates = _rates(
            {
                "ours": ours,
                "torch": lambda: plain(_TORCH_BATCH),
                "torch, one tile at a time": lambda: plain(1),
            },
            len(tiles),
            size.repeats,
        )
    finally:
        torch.set_num_threads(before)
    error = float(np.abs(found - reference).max())
    yield Check("encoder against torch, largest difference of a feature", error, 1e-4, "<=")
    speeds = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    note = f"tiles per second and core: {speeds}"
    ratio = rates["ours"] / rates["torch"]
    what = f"encoder, tiles per second and core over plain torch in batches of {_TORCH_BATCH}"
    yield Check(what, ratio, 5.0, ">=", note, full_size=True)
    ratio = rates["ours"] / rates["torch, one tile at a time"]
    what = "encoder, tiles per second and core over torch at its fastest (one tile at a time)"
    yield Check(what, ratio, 1.5, ">=", note, full_size=True)


def _in_batches(
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    tiles: NDArray[np.uint8],
    batch: int,
) -> NDArray[np.float32]:
    parts = [encode(tiles[i : i + batch]) for i in range(0, len(tiles), batch)]
    return np.concatenate(parts)


def _rates(work: dict[str, Callable[[], object]], n_tiles: int, repeats: int) -> dict[str, float]:
    """Return tiles per second of processor time, median over turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, task in work.items():
            started = time.process_time()
            task()
            seconds[name].append(time.process_time() - started)
    return {name: n_tiles / statistics.median(times) for name, times in seconds.items()}


def _whole_slide(path: Path) -> Iterator[Check]:
    """From the file to features: reading, tissue, quality and encoder, in this process."""
    spec = FeatureSpec(
        modality="pathology", dim=1280, max_tokens=4096, extractor=ExtractorSpec(kind="tiles")
    )
    extractor = TileExtractor("tiles", spec)
    row = PatientRow(patient_id="cmu", slides=[path])
    first = extractor.extract(row)
    started = time.process_time()
    second = extractor.extract(row)
    rate = len(second.features) / (time.process_time() - started)
    note = f"{len(second.features)} tiles of {path.name}"
    what = "whole extraction of a slide, tiles per second and core"
    yield Check(what, rate, 20.0, ">=", note, full_size=True)
    same = float(np.abs(first.features - second.features).max())
    yield Check("extraction twice, largest difference of a feature", same, 0.0, "==")


if __name__ == "__main__":
    main(__file__)
