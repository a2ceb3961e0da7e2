"""Extract bags of tile features from slides: tissue, tiles, quality, encoder."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from client.extract.encoders.encoder_registry import encoder_entry
from client.extract.encoders.tile_encoder import TileEncoder, encoder_digest, load_encoder
from client.extract.kinds.extractor import (
    PROBLEMS,
    Extractor,
    InputNames,
    Kept,
    NothingToExtract,
    fingerprint_of,
)
from client.extract.slides.slide_table import (
    SLIDES,
    SlideEntry,
    slide_index,
    slides_attribute,
    tile_side_attribute,
)
from client.extract.slides.stain import StainNormaliser, fit_macenko
from client.extract.slides.tiles import QualityParams, TileGrid, plan_tiles, reject_reason, thinned
from client.extract.slides.tissue import TissueParams, find_tissue
from client.extract.slides.wsi_reader import SlideReader
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import Contract
from common.errors import ConfigError, ErrorCode, ExtractionError
from common.study.study import FeatureSpec

_CODE_VERSION = 1
_BATCH = 16


class TileParams(Contract):
    """Parameters of the extractor kind `tiles`."""

    encoder: str = Field(default="efficientnet_lite0", description="key in the encoder registry")
    sha256: str | None = Field(default=None, description="digest of the encoder's weights")
    weights: str | None = Field(default=None, description="file of the weights at a hospital")
    um_per_px: float = Field(default=0.5, gt=0, description="resolution of a tile")
    tile_px: int | None = Field(default=None, gt=0, description="side; None = encoder's input")
    max_tiles: int | None = Field(default=None, gt=0, description="thinned out evenly, per slide")
    tissue: TissueParams = TissueParams()
    quality: QualityParams = QualityParams()
    stain: Literal["none", "macenko"] = "none"


class TileExtractor(Extractor[TileParams]):
    """One bag per patient: rows of all its slides, with the corner of each tile.

    Args:
        feature_name: Key in `Study.features`.
        spec: Its specification, with `TileParams` as `extractor.params`.

    Raises:
        ConfigError: Parameters, encoder or weights are wrong; see `load_encoder`.
    """

    kind: ClassVar[str] = "tiles"
    params_class = TileParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        entry = encoder_entry(self.params.encoder)
        if entry.dim != spec.dim:
            raise ConfigError(
                f"the encoder gives {entry.dim} features per tile, the study says {spec.dim}",
                where=f"{self.where}.dim",
                cure=f"set dim: {entry.dim}",
            )
        self.tile_px = self.params.tile_px or entry.input_px
        self._weights = {"sha256": self.params.sha256, "weights": self.params.weights}
        digest = encoder_digest(entry.name, self._weights)
        self.fingerprint = fingerprint_of(
            self.kind,
            self.params.model_dump(mode="json", exclude={"weights", "sha256", "tile_px"})
            | {"tile_px": self.tile_px},
            code_version=_CODE_VERSION,
            weights={entry.name: digest},
        )

    def inputs(self, row: PatientRow) -> list[Path]:
        """Return the patient's slides."""
        return list(row.slides)

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the patient's tiles, (T, dim) float32, with corners (T, 2) in level-0 pixels.

        A slide that cannot be used is set aside with its reason (attribute `problems`) as long
        as another one of the patient can.

        Raises:
            NothingToExtract: No slide holds tissue.
            ExtractionError: No slide is usable; the first one's reason.
        """
        bags: list[tuple[NDArray[np.float32], NDArray[np.int64], SlideEntry]] = []
        problems: list[ExtractionError] = []
        for index, path in enumerate(row.slides):
            try:
                bags.append(self._extract_slide(index, path))
            except ExtractionError as error:
                problems.append(error)
        if not bags:
            faults = [error for error in problems if not isinstance(error, NothingToExtract)]
            raise (faults or problems)[0]
        entries = [entry for _, _, entry in bags]
        return FeatureFile(
            features=np.concatenate([features for features, _, _ in bags]),
            coords=np.concatenate([corners for _, corners, _ in bags]),
            attrs=self._attributes(entries, problems),
            slide_index=slide_index(entries),
        )

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name every tile by its place, and its slide where there are several."""
        if file.coords is None:
            return InputNames()
        slides = file.slide_index
        several = slides is not None and len(np.unique(slides)) > 1
        return InputNames(
            tokens=[
                (f"slide {int(slides[k]) + 1}, " if several and slides is not None else "")
                + f"tile at ({int(file.coords[k, 0])}, {int(file.coords[k, 1])})"
                for k in kept
            ]
        )

    def _attributes(
        self, entries: list[SlideEntry], problems: list[ExtractionError]
    ) -> dict[str, str | int | float]:
        attributes: dict[str, str | int | float] = {
            "encoder": self._encoder.name,
            "encoder_sha256": self._encoder.sha256,
            "um_per_px": self.params.um_per_px,
            "patch_size": self.tile_px,
            "tile_um": self.tile_px * self.params.um_per_px,
            SLIDES: slides_attribute(entries),
        }
        attributes |= {tile_side_attribute(e.index): e.tile_side_px for e in entries}
        if len({entry.tile_side_px for entry in entries}) == 1:
            attributes["patch_size_level0"] = entries[0].tile_side_px
        if problems:
            attributes[PROBLEMS] = json.dumps(
                [{"code": e.code, "where": e.where, "reason": e.what} for e in problems]
            )
        return attributes

    @cached_property
    def _encoder(self) -> TileEncoder:
        return load_encoder(self.params.encoder, self._weights)

    def _extract_slide(
        self, index: int, path: Path
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], SlideEntry]:
        with SlideReader(path) as slide:
            grid = self._grid(slide)
            stain = self._stain(slide, grid)
            rejected: Counter[str] = Counter()
            rows: list[NDArray[np.float32]] = []
            corners: list[NDArray[np.int64]] = []
            for tiles, at in self._batches(slide, grid, rejected):
                rows.append(self._encoder.encode(stain(tiles) if stain else tiles))
                corners.append(at)
            if not rows:
                raise _no_tissue(path, f"all {len(grid.corners)} tiles were rejected: ", rejected)
            entry = SlideEntry(
                index=index,
                file=path.name,
                n_tiles=sum(map(len, rows)),
                um_per_px=slide.um_per_px,
                tile_side_px=grid.side_px,
                width_px=slide.width_px,
                height_px=slide.height_px,
                rejected=dict(sorted(rejected.items())),
            )
        return np.concatenate(rows), np.concatenate(corners), entry

    def _grid(self, slide: SlideReader) -> TileGrid:
        tissue = find_tissue(slide, self.params.tissue)
        grid = plan_tiles(
            slide,
            tissue,
            tile_px=self.tile_px,
            um_per_px=self.params.um_per_px,
            min_tissue=self.params.quality.min_tissue,
        )
        if len(grid.corners) == 0:
            share = f"{100 * float(tissue.mask.mean()):.1f} % of the slide is tissue: "
            raise _no_tissue(slide.path, share + "too little for one tile", Counter())
        return thinned(grid, self.params.max_tiles)

    def _stain(self, slide: SlideReader, grid: TileGrid) -> StainNormaliser | None:
        if self.params.stain == "none":
            return None
        some = thinned(grid, 24)
        return fit_macenko(np.stack([_read(slide, some, corner) for corner in some.corners]))

    def _batches(
        self, slide: SlideReader, grid: TileGrid, rejected: Counter[str]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Yield good tiles and their corners, a few at a time; count the others."""
        tiles: list[NDArray[np.uint8]] = []
        corners: list[NDArray[np.int64]] = []
        for corner in grid.corners:
            tile = _read(slide, grid, corner)
            reason = reject_reason(tile, self.params.quality)
            if reason is not None:
                rejected[reason.value] += 1
                continue
            tiles.append(tile)
            corners.append(corner)
            if len(tiles) == _BATCH:
                yield np.stack(tiles), np.stack(corners)
                tiles, corners = [], []
        if tiles:
            yield np.stack(tiles), np.stack(corners)


def _read(slide: SlideReader, grid: TileGrid, corner: NDArray[np.int64]) -> NDArray[np.uint8]:
    side, size = grid.side_px, (grid.tile_px, grid.tile_px)
    return slide.read(int(corner[0]), int(corner[1]), side, side, size)


def _no_tissue(path: Path, why: str, rejected: Counter[str]) -> NothingToExtract:
    counts = ", ".join(f"{n} {reason}" for reason, n in sorted(rejected.items()))
    return NothingToExtract(
        "no tissue",
        where=str(path),
        why=why + counts,
        cure="look at the slide; loosen extractor.params.tissue for pale or small tissue",
        code=ErrorCode.EXTRACTION,
    )
