"""Define every error that a user can meet, with a stable code and how to fix it.

The tree::

    TumorboardError
    ├── ConfigError        a study, policy or scenario file is wrong
    ├── ManifestError      the patient table is wrong (all problems at once)
    ├── FeatureError       a feature file is missing, damaged or from another extractor
    ├── ExtractionError    one raw file could not be turned into features
    ├── DataError          a dataset cannot be trained on or evaluated
    ├── PrivacyError       a privacy plan or model layer breaks the guarantee
    │   └── BudgetError    a ledger refuses to spend
    ├── LedgerError        a ledger is damaged or was rolled back
    ├── ProtocolError      a message between site and server is refused
    ├── RunError           a federated run cannot continue
    └── DiskFullError      no room to write (`common.storage.full_disk`)

An error holds four sentences: what is wrong, where, why it matters, how to fix it. Only
`ErrorCode` values cross the site boundary; the sentences may name patients and stay at home.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable codes; the only part of an error that may leave a hospital."""

    CONFIG = "TB100"
    PLUGIN = "TB101"
    MANIFEST = "TB200"
    FEATURE = "TB300"
    FEATURE_FINGERPRINT = "TB301"
    FEATURE_NOT_FINITE = "TB302"
    EXTRACTION = "TB310"
    SLIDE_WITHOUT_RESOLUTION = "TB311"
    IMAGE_MASK_MISMATCH = "TB312"
    DATA = "TB320"
    PRIVACY = "TB400"
    LAYER_NOT_PRIVATE = "TB401"
    WEIGHTS_ORIGIN = "TB402"
    BUDGET = "TB410"
    ALREADY_SPENT = "TB411"
    LEDGER_DAMAGED = "TB420"
    LEDGER_ROLLBACK = "TB421"
    AUDIT_LOG = "TB422"
    PROTOCOL = "TB500"
    STUDY_DIGEST = "TB501"
    CODE_DIGEST = "TB502"
    NOT_APPROVED = "TB503"
    POLICY = "TB504"
    PAYLOAD = "TB505"
    NOT_FINITE = "TB506"
    BUNDLE = "TB507"
    UNPROVEN = "TB508"
    AGENT_AWAY = "TB509"
    SECURE_SUM = "TB510"
    FALSE_SHARES = "TB511"
    JOIN_REQUEST = "TB520"
    ROSTER = "TB521"
    CERTIFICATE = "TB522"
    REVOKED = "TB523"
    NODE_KEY = "TB530"
    REPLAYED = "TB531"
    INTERFACE = "TB532"
    RUN = "TB600"
    QUORUM = "TB601"
    STOPPED = "TB602"
    TRANSPORT = "TB603"
    INTERNAL = "TB900"
    DISK_FULL = "TB910"


class TumorboardError(Exception):
    """Base of all errors shown to a user.

    Args:
        what: What is wrong, one sentence.
        where: File, row, column, key or layer.
        why: Why it is refused.
        cure: What the reader can do about it.
        code: Stable code; defaults to the class's own.
    """

    default_code: ErrorCode = ErrorCode.INTERNAL
    exit_status: int = 1

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        cure: str = "",
        code: ErrorCode | None = None,
    ) -> None:
        self.what, self.where, self.why, self.cure = what, where, why, cure
        self.code = code or self.default_code
        super().__init__(what)

    def __str__(self) -> str:
        """Return the error as one readable paragraph."""
        parts = [f"[{self.code}] {self.what}"]
        parts += [f"  where: {self.where}"] if self.where else []
        parts += [f"  why:   {self.why}"] if self.why else []
        parts += [f"  fix:   {self.cure}"] if self.cure else []
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process pool with all four sentences."""
        return (_rebuild, (type(self), self.what, self.where, self.why, self.cure, self.code))

    def as_dict(self) -> dict[str, str]:
        """Return the error for `--json` output."""
        return {
            "code": str(self.code),
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "cure": self.cure,
        }


def _rebuild(
    kind: type[TumorboardError], what: str, where: str, why: str, cure: str, code: ErrorCode
) -> TumorboardError:
    error = kind.__new__(kind)
    TumorboardError.__init__(error, what, where=where, why=why, cure=cure, code=code)
    return error


_LABELS = {"where": "where", "why": "why", "fix": "cure"}
_STATUS = {"TB1": 2, "TB2": 2, "TB4": 3, "TB5": 4, "TB6": 5}
"""First characters of a code -> exit status of a command that fails with it."""


def error_in(log: str) -> TumorboardError | None:
    r"""Return the last error that a command printed into a log, with its texts; None if none.

    Example:
        >>> error_in("starting\n[TB100] the file is gone\n  fix:   restore it\n").cure
        'restore it'
    """
    first_lines = list(re.finditer(r"^\[(TB\d{3})\] (.*)$", log, re.MULTILINE))
    if not first_lines or first_lines[-1][1] not in set(ErrorCode):
        return None
    texts, last = {"what": first_lines[-1][2]}, "what"
    for line in log[first_lines[-1].end() :].splitlines()[1:]:
        label, _, text = line.strip().partition(":")
        if label in _LABELS and line.startswith("  "):
            last = _LABELS[label]
            texts[last] = text.strip()
        elif line.startswith("  "):
            texts[last] += f"\n{line}"
        else:
            break
    code = ErrorCode(first_lines[-1][1])
    error = TumorboardError(texts.pop("what"), **texts, code=code)
    error.exit_status = _STATUS.get(code[:3], 1)
    return error


class ConfigError(TumorboardError):
    """A study, policy or scenario file is wrong."""

    default_code = ErrorCode.CONFIG
    exit_status = 2


@dataclass(frozen=True)
class RowProblem:
    """One problem of a table, in words by which a data manager can fix it."""

    row: int | None
    column: str
    value: str
    what: str
    cure: str

    def __str__(self) -> str:
        """Return the problem as one line."""
        row = f"row {self.row}" if self.row is not None else "header"
        return f"{row}, column '{self.column}', value '{self.value}': {self.what}. Fix: {self.cure}"


class ManifestError(TumorboardError):
    """The patient table is wrong; carries every problem found."""

    default_code = ErrorCode.MANIFEST
    exit_status = 2

    def __init__(self, where: str, problems: Sequence[RowProblem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"    - {problem}" for problem in self.problems)
        super().__init__(
            f"{len(self.problems)} problem(s) in the manifest:\n{lines}",
            where=where,
            why="a patient that is read wrongly trains a wrong model",
            cure="correct the rows named above and run the same command again",
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process pool with all problems."""
        return (type(self), (self.where, self.problems))


class FeatureError(TumorboardError):
    """A feature file is missing, damaged or made by another extractor."""

    default_code = ErrorCode.FEATURE


class ExtractionError(TumorboardError):
    """One raw file could not be turned into features; the others continue."""

    default_code = ErrorCode.EXTRACTION


class DataError(TumorboardError):
    """A dataset cannot be trained on or evaluated."""

    default_code = ErrorCode.DATA


class PrivacyError(TumorboardError):
    """A privacy plan or a model layer breaks the guarantee."""

    default_code = ErrorCode.PRIVACY
    exit_status = 3


class BudgetError(PrivacyError):
    """The ledger refuses to spend."""

    default_code = ErrorCode.BUDGET


class LedgerError(TumorboardError):
    """A ledger is damaged or was rolled back."""

    default_code = ErrorCode.LEDGER_DAMAGED
    exit_status = 3


class ProtocolError(TumorboardError):
    """A message between a site and the server is refused."""

    default_code = ErrorCode.PROTOCOL
    exit_status = 4


class RunError(TumorboardError):
    """A federated run cannot continue."""

    default_code = ErrorCode.RUN
    exit_status = 5
