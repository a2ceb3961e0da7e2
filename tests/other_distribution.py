"""Another distribution on the path, as pip would have installed it."""

from collections.abc import Mapping
from pathlib import Path

from common.registry import offered


def install(
    folder: Path,
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    name: str = "other",
    version: str = "1.0",
) -> None:
    """Write the metadata of a distribution into a folder of the path.

    `entry_points` maps groups to names to locations.
    """
    meta = folder / f"{name}-{version}.dist-info"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (meta / "entry_points.txt").write_text("\n".join(lines) + "\n")
    offered.cache_clear()
