"""Count a hospital's patients in a study's subgroups, for the hospital only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from common.cohort.manifest import read_manifest
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.study.subgroups import UNKNOWN, unmatched_values

SHOWN = 5
"""Values named that no level holds; the rest are counted."""


@dataclass(frozen=True)
class SubgroupCounts:
    """Rows of the manifest by level of one subgroup.

    Attributes:
        name: The subgroup.
        column: Column of the manifest it is read from.
        levels: Level -> rows.
        empty: Rows without a value.
        unmatched: Filled cell that no level names -> rows.
    """

    name: str
    column: str
    levels: dict[str, int]
    empty: int
    unmatched: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """Return the counts as one line."""
        parts = [f"{level} {n}" for level, n in self.levels.items()]
        parts += [f"in none {self.empty + sum(self.unmatched.values())}"]
        return f"subgroup {self.name}: {', '.join(parts)}"

    def open_point(self) -> str | None:
        """Return what should be looked at, or None."""
        if not any(self.levels.values()):
            return f"subgroup {self.name}: no patient is in any level; is '{self.column}' filled?"
        if not self.unmatched:
            return None
        values = ", ".join(f"'{value}' ({n})" for value, n in list(self.unmatched.items())[:SHOWN])
        more = len(self.unmatched) - SHOWN
        tail = f" and {more} more" if more > 0 else ""
        return (
            f"subgroup {self.name}: values of '{self.column}' that no level names: {values}{tail}; "
            "these patients count in the overall figures only"
        )


def count_subgroups(policy: SitePolicy, study: Study) -> list[SubgroupCounts]:
    """Return how the rows of this hospital's manifest fall into the study's subgroups.

    Raises:
        ManifestError: With every problem of the manifest at once.
    """
    if not study.subgroups:
        return []
    records = [row.clinical for row in read_manifest(policy.manifest).rows]
    counts = []
    for name, group in sorted(study.subgroups.items()):
        level_counts = Counter(group.index(record.get(group.variable)) for record in records)
        other_values = unmatched_values(group, records)
        counts.append(
            SubgroupCounts(
                name=name,
                column=group.column,
                levels={level: level_counts[index] for index, level in enumerate(group.names)},
                empty=level_counts[UNKNOWN] - sum(other_values.values()),
                unmatched=other_values,
            )
        )
    return counts
