"""Count a cohort from rows to usable patients, with the reason for each exclusion.

For the hospital's own eyes: exact counts and identifiers never leave it.
"""

from collections.abc import Callable, Mapping, Sequence

from common.cohort.manifest import PatientRow
from common.contract import Contract
from common.study.modalities import Modality
from common.study.study import FeatureSpec, Task

SHOWN = 5
"""Identifiers named per reason; the rest are counted."""


class FeatureCount(Contract):
    """How many patients have one feature set."""

    feature: str
    modality: Modality
    named: int
    extracted: int


class Loss(Contract):
    """Patients lost for one reason."""

    reason: str
    patient_ids: list[str]


class Funnel(Contract):
    """Counts of patients at each step.

    Attributes:
        rows: Rows of the manifest.
        patients: Patients in them.
        features: Per feature set, raw input named and features extracted.
        outcomes: Per task, patients with a known outcome.
        with_outcome: Patients with at least one of these outcomes.
        usable: Patients with an outcome and at least one feature set.
        lost: Why the others are not usable.
        usable_ids: Who is usable.
    """

    rows: int
    patients: int
    features: list[FeatureCount]
    outcomes: dict[str, int]
    with_outcome: int
    usable: int
    lost: list[Loss]
    usable_ids: list[str]

    def lines(self) -> list[str]:
        """Return the funnel as lines to print."""
        width = max([len("with an outcome"), *(len(c.feature) + 5 for c in self.features)])
        lines = [
            f"{'rows':<{width}} {self.rows:>6}",
            f"{'patients':<{width}} {self.patients:>6}",
        ]
        for count in self.features:
            note = f"({count.modality}; input named for {count.named})"
            lines.append(f"{'with ' + count.feature:<{width}} {count.extracted:>6}  {note}")
        outcomes = ", ".join(f"{task} {n}" for task, n in self.outcomes.items())
        lines.append(f"{'with an outcome':<{width}} {self.with_outcome:>6}  ({outcomes})")
        lines.append(f"{'usable':<{width}} {self.usable:>6}")
        for loss in self.lost:
            names = ", ".join(loss.patient_ids[:SHOWN])
            more = len(loss.patient_ids) - SHOWN
            tail = f" and {more} more" if more > 0 else ""
            lines.append(f"  lost {len(loss.patient_ids)}: {loss.reason}: {names}{tail}")
        return lines


def build_funnel(
    rows: Sequence[PatientRow],
    features: Mapping[str, FeatureSpec],
    has_feature: Callable[[str, str], bool],
    tasks: Sequence[Task],
) -> Funnel:
    """Return the funnel of a cohort.

    Args:
        rows: Patients of the manifest.
        features: Feature sets of the study.
        has_feature: (feature, patient_id) -> whether its feature file exists.
        tasks: Tasks of the study.
    """
    present = {
        row.patient_id: {name for name in features if has_feature(name, row.patient_id)}
        for row in rows
    }
    reasons: dict[str, list[str]] = {}
    usable_ids = []
    for row in rows:
        reason = _why_lost(row, features, present[row.patient_id], tasks)
        if reason is None:
            usable_ids.append(row.patient_id)
        else:
            reasons.setdefault(reason, []).append(row.patient_id)
    return Funnel(
        rows=len(rows),
        patients=len(present),
        features=[
            FeatureCount(
                feature=name,
                modality=spec.modality,
                named=sum(row.has_raw(spec.modality) for row in rows),
                extracted=sum(name in names for names in present.values()),
            )
            for name, spec in features.items()
        ],
        outcomes={task: sum(row.observed(task) for row in rows) for task in tasks},
        with_outcome=sum(row.has_outcome(tasks) for row in rows),
        usable=len(usable_ids),
        lost=[Loss(reason=reason, patient_ids=ids) for reason, ids in reasons.items()],
        usable_ids=usable_ids,
    )


def _why_lost(
    row: PatientRow,
    features: Mapping[str, FeatureSpec],
    present: set[str],
    tasks: Sequence[Task],
) -> str | None:
    if not row.has_outcome(tasks):
        return f"no outcome ({' or '.join(tasks)})"
    if present:
        return None
    if any(row.has_raw(spec.modality) for spec in features.values()):
        return "input named but no features extracted (run `tumorboard site extract`)"
    return "no input of any modality of the study"
