"""Sum up an extraction run: counts, and what needs attention."""

from dataclasses import dataclass, field
from typing import NamedTuple


class ItemFailure(NamedTuple):
    """One thing to know about one item, in words for the data manager."""

    patient_id: str
    feature: str
    code: str
    reason: str
    where: str = ""
    cure: str = ""

    def __str__(self) -> str:
        """Return it as one line."""
        where = f" ({self.where})" if self.where else ""
        cure = f". Fix: {self.cure}" if self.cure else ""
        return f"{self.patient_id}, {self.feature}: [{self.code}] {self.reason}{where}{cure}"


@dataclass
class ExtractionSummary:
    """Counts of items (patient and feature set), and names of those that need attention.

    Attributes:
        done: Extracted in this run.
        skipped: Up to date already, or brought ready-made by the hospital.
        absent: The manifest names no raw input.
        failed: Not extracted; tried again in the next run.
        empty: Sound raw files without anything usable (no tissue); not tried again.
        set_aside: Raw files left out of an item that was extracted from the others.
    """

    done: int = 0
    skipped: int = 0
    absent: int = 0
    failed: list[ItemFailure] = field(default_factory=list)
    empty: list[ItemFailure] = field(default_factory=list)
    set_aside: list[ItemFailure] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """1 if something failed or was set aside, else 0."""
        return 1 if self.failed or self.set_aside else 0

    def sort(self) -> None:
        """Bring the lists into one order, whatever the order of completion."""
        for names in (self.failed, self.empty, self.set_aside):
            names.sort()

    def lines(self) -> list[str]:
        """Return the summary for people: counts, then every item to look at by name."""
        counts = [
            f"{self.done} extracted",
            f"{self.skipped} up to date",
            f"{self.absent} absent",
            f"{len(self.empty)} with nothing usable",
            f"{len(self.failed)} failed",
        ]
        lines = [", ".join(counts)]
        for title, names in (
            ("Failed, tried again next time:", self.failed),
            ("Raw files set aside (the patient's others were used):", self.set_aside),
            ("Nothing usable, not tried again until the files change:", self.empty),
        ):
            lines += [title, *(f"  {name}" for name in names)] if names else []
        return lines

    def as_dict(self) -> dict[str, object]:
        """Return the summary for `--json` output."""
        return {
            name: [item._asdict() for item in value] if isinstance(value, list) else value
            for name, value in vars(self).items()
        }
