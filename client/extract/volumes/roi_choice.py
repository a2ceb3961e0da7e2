"""Choose the tumour among drawn regions: by exact name or regular expression, never guessed."""

import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, ErrorCode, ExtractionError

DEFAULT_ROI = r"(GTV|tumou?r|neoplasm|lesion).*"
"""Names that count as the tumour where a study does not say; case is ignored."""


def choose_rois(names: Sequence[str], wanted: str | None, source: Path) -> list[int]:
    """Return the positions of the chosen regions.

    An exact name wins; otherwise `wanted` is a regular expression that must match a whole name,
    and the union of all that match is meant. Without `wanted`, exactly one name must match
    `DEFAULT_ROI`: whether oedema belongs to the tumour is not ours to decide.

    Args:
        names: Region names in the file.
        wanted: Name or regular expression, case ignored; None for the default.
        source: The file, for messages.

    Raises:
        ExtractionError: None matches, or several match the default.
        ConfigError: `wanted` is no valid regular expression.

    Example:
        >>> choose_rois(["GTV-1", "Lung-Left"], None, Path("rs.dcm"))
        [0]
        >>> choose_rois(["GTV-1", "GTV-2"], "GTV-.*", Path("rs.dcm"))
        [0, 1]
    """
    lower_names = [name.strip().lower() for name in names]
    if wanted is not None and wanted.strip().lower() in lower_names:
        return [i for i, name in enumerate(lower_names) if name == wanted.strip().lower()]
    try:
        pattern = re.compile(wanted or DEFAULT_ROI, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"'{wanted}' is no regular expression",
            where="extractor.params.roi",
            why=str(error),
            cure="write a region's name, or an expression such as GTV.*",
        ) from error
    indices = [i for i, name in enumerate(names) if pattern.fullmatch(name.strip())]
    if not indices or (wanted is None and len(indices) > 1):
        raise ExtractionError(
            f"{len(indices)} regions match '{wanted or DEFAULT_ROI}'",
            where=str(source),
            why="the tumour must be named, never guessed",
            cure=f"set extractor.params.roi; the file holds: {', '.join(names) or 'none'}",
            code=ErrorCode.EXTRACTION,
        )
    return indices
