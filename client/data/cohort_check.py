"""Check a hospital's manifest against a study: usable patients, and what is still missing."""

from collections import Counter
from dataclasses import dataclass, field

from client.data.split import fraction_held
from common.cohort.features_h5 import feature_path
from common.cohort.funnel import Funnel, build_funnel
from common.cohort.manifest import read_manifest
from common.errors import DataError
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.study.subgroups import UNKNOWN, unmatched_values


def check_cohort(policy: SitePolicy, study: Study) -> Funnel:
    """Return the cohort funnel of this hospital.

    Raises:
        ManifestError: With every problem of the manifest at once.
    """
    manifest = read_manifest(policy.manifest)

    def has_feature(feature: str, patient_id: str) -> bool:
        return feature_path(policy.feature_store, feature, patient_id).is_file()

    return build_funnel(manifest.rows, study.features, has_feature, study.tasks)


def check_size(n_patients: int, policy: SitePolicy) -> None:
    """Refuse a cohort below the hospital's own floor.

    Raises:
        DataError: It is.
    """
    if n_patients < policy.minimum_cohort:
        raise DataError(
            f"{n_patients} usable patients, at least {policy.minimum_cohort} are needed",
            where="site.yaml: minimum_cohort",
            why="a small cohort is easier to recognise in an update",
            cure="extract more patients, see `tumorboard site check`",
        )


def open_points(policy: SitePolicy, study: Study, funnel: Funnel) -> list[str]:
    """Return what still stands between this hospital and taking part, one sentence each."""
    points = []
    if policy.site_id not in {entry.site_id for entry in study.sites}:
        points.append(f"the study's roster does not name '{policy.site_id}'")
    if study.privacy.mode not in policy.allowed_modes:
        modes = ", ".join(policy.allowed_modes)
        points.append(f"site.yaml allows {modes}, not the study's mode '{study.privacy.mode}'")
    if policy.approval_of(study.digest()) is None:
        points.append("this hospital has not approved the study (`tumorboard site approve`)")
    fraction = study.training.test_fraction
    own_fraction = fraction_held(policy.split_key_file)
    if own_fraction is not None and own_fraction != fraction:
        points.append(
            f"the study holds out {fraction:.6g} of the patients, this hospital {own_fraction:.6g}"
        )
    for count in funnel.features:
        if count.named > count.extracted:
            missing = count.named - count.extracted
            points.append(f"{count.feature}: input named, features not extracted for {missing}")
    if funnel.usable < policy.minimum_cohort:
        points.append(
            f"{funnel.usable} usable patients, site.yaml asks for {policy.minimum_cohort}"
        )
    return points


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
