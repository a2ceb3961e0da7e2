"""Describe each hospital in a report: data funnel, modalities, part in training.

Exact counts below five are never shown, nor a share from which one could be derived.
"""

from collections import Counter
from dataclasses import dataclass

from common.cohort.cohort_counts import CohortCounts
from common.metrics.tables.estimate import MIN_SHOWN
from server.report.content import ReportContent

PRIVATE = "private"
STEPS = {
    "listed": "in the manifest",
    "labelled": "with an outcome",
    "usable": "and with features",
    "train": "trained on",
    "held_out": "held out",
}


@dataclass(frozen=True)
class HospitalRow:
    """One hospital.

    Attributes:
        site_id: The hospital.
        name: Its name on the roster, or empty.
        took_part: Whether it takes part, or did until it left.
        absence: Why it does not, or no more; empty where it does.
        funnel: Step -> count as text.
        available: Feature set -> share of usable patients as text, "yes" or "no".
        rounds: Rounds its update counted in.
        missed: Code, or silent -> rounds in which it did not count.
        share: Its share of all training patients, or None where that is private.
    """

    site_id: str
    name: str
    took_part: bool
    absence: str
    funnel: dict[str, str]
    available: dict[str, str]
    rounds: int
    missed: dict[str, int]
    share: float | None


def hospital_rows(content: ReportContent) -> list[HospitalRow]:
    """Return one row per hospital of the roster, sorted."""
    result = content.result
    names = {entry.site_id: entry.name for entry in result.study.sites}
    cohorts = [state.cohort for state in result.sites.values() if state.cohort is not None]
    n_trained = sum(cohort.train for cohort in cohorts)
    rows = []
    for site_id, state in sorted(result.sites.items()):
        cohort = state.cohort
        absences = Counter(
            record.dropped[site_id] for record in result.history if site_id in record.dropped
        )
        rows.append(
            HospitalRow(
                site_id=site_id,
                name=names.get(site_id, ""),
                took_part=state.took_part,
                absence="" if state.enrolled else state.refusal_code or "did not answer",
                funnel={step: _count(cohort, step) for step in STEPS},
                available={
                    feature: _available(content, site_id, feature)
                    for feature in result.study.features
                },
                rounds=sum(site_id in record.sites for record in result.history),
                missed=dict(sorted(absences.items())),
                share=_share(cohort, n_trained),
            )
        )
    return rows


def shown_count(count: int) -> str:
    """Return an exact count that may be shown.

    >>> shown_count(3), shown_count(0), shown_count(17)
    ('<5', '0', '17')
    """
    return f"<{MIN_SHOWN}" if 0 < count < MIN_SHOWN else str(count)


def _share(cohort: CohortCounts | None, n_trained: int) -> float | None:
    if cohort is None or not n_trained or 0 < cohort.train < MIN_SHOWN:
        return None
    return cohort.train / n_trained


def _count(cohort: CohortCounts | None, step: str) -> str:
    return PRIVATE if cohort is None else shown_count(int(getattr(cohort, step)))


def _available(content: ReportContent, site_id: str, feature: str) -> str:
    state = content.result.sites[site_id]
    has = content.result.study.features[feature].modality in state.modalities
    cohort = state.cohort
    if cohort is None or feature not in cohort.present or not cohort.usable:
        return "yes" if has else "no"
    present, absent = cohort.present[feature], cohort.usable - cohort.present[feature]
    if any(0 < n < MIN_SHOWN for n in (present, absent)):
        return "nearly all" if present > absent else "a few"
    return f"{100 * present / cohort.usable:.0f} %"
