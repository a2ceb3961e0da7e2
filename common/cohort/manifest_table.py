"""Read a manifest's cells as text from CSV or Parquet, and recognise its columns."""

import csv
import difflib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ManifestError, RowProblem
from common.study.modalities import COLUMNS

SIMPLE_COLUMNS = (
    "patient_id",
    *(column.name for column in COLUMNS if not column.each),
    *("response", "time", "time_unit", "time_months", "event"),
)
PREFIXES = tuple(column.name for column in COLUMNS if column.each)
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_]*"
"""Names of sequences and clinical variables."""

PATIENT_ID_PATTERN = "[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?"
"""Identifiers name files on every system."""


@dataclass(frozen=True)
class RawTable:
    """Cells as text; rows carry the line of the file they start on (the header is line 1)."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]


@dataclass(frozen=True)
class Header:
    """Where each known column stands, and what is wrong with the header.

    Attributes:
        width: Number of columns.
        position: Column -> where it stands.
        named: Prefix -> sequences or variables that have such a column.
        problems: What is wrong.
    """

    width: int
    position: dict[str, int]
    named: dict[str, list[str]]
    problems: list[RowProblem] = field(default_factory=list)


def read_table(path: Path) -> RawTable:
    """Return the cells of a CSV or Parquet file; wholly empty CSV lines are skipped.

    Raises:
        ManifestError: The file is missing, unreadable, or of another kind.
    """
    if not path.is_file():
        raise _file_problem(path, "the file does not exist", "check the path for a typing error")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        return _read_csv(path)
    except (OSError, csv.Error, UnicodeDecodeError, ValueError) as error:
        cure = "save the table as CSV in UTF-8, separated by commas, or as Parquet"
        raise _file_problem(
            path, f"the table cannot be read ({' '.join(str(error).split())})", cure
        ) from error


def check_header(table: RawTable) -> Header:
    """Return what the columns are, with every problem of the header."""
    position: dict[str, int] = {}
    problems: list[RowProblem] = []
    for index, name in enumerate(table.columns):
        if name in position:
            cure = "keep one of the two columns"
            problems.append(RowProblem(None, name, name, "the column occurs twice", cure))
        elif _is_known(name):
            position[name] = index
        else:
            problems.append(RowProblem(None, name, name, "unknown column", _unknown_cure(name)))
    problems += _missing_columns(position, table.columns)
    suffixes = {p: [c[len(p) :] for c in position if c.startswith(p)] for p in PREFIXES}
    for column in (column for column in COLUMNS if column.needs):
        for name in (n for n in suffixes[column.name] if n not in suffixes[column.needs]):
            what = f"a {column.holds} column without the column '{column.needs}{name}'"
            cure = f"add '{column.needs}{name}' or remove this column"
            problems.append(RowProblem(None, f"{column.name}{name}", "", what, cure))
    return Header(
        width=len(table.columns),
        position=position,
        named=suffixes,
        problems=problems,
    )


def _missing_columns(position: dict[str, int], columns: list[str]) -> list[RowProblem]:
    problems = []

    def missing(column: str, cure: str, what: str = "required column is missing") -> None:
        problems.append(RowProblem(None, column, "", what, cure))

    if "patient_id" not in position:
        semicolons = len(columns) == 1 and ";" in columns[0]
        cure = "add a column of unique patient identifiers"
        missing("patient_id", "separate the cells by commas" if semicolons else cure)
    has_time = "time" in position or "time_months" in position
    if "time" in position and "time_months" in position:
        missing("time_months", "keep one of the two", "both 'time' and 'time_months' are given")
    if "time" in position and "time_unit" not in position:
        missing("time_unit", "add it with days, months or years, or rename to 'time_months'")
    if "time_unit" in position and "time" not in position:
        missing("time", "add it, or remove 'time_unit'")
    if has_time and "event" not in position:
        missing("event", "add it: 1 = died, 0 = alive when last seen")
    if "event" in position and not has_time:
        missing("time", "add 'time' with 'time_unit', or 'time_months'")
    return problems


def _is_known(name: str) -> bool:
    if name in SIMPLE_COLUMNS:
        return True
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    return prefix is not None and re.fullmatch(NAME_PATTERN, name[len(prefix) :]) is not None


def _unknown_cure(name: str) -> str:
    close = difflib.get_close_matches(name.strip().lower(), SIMPLE_COLUMNS, n=1, cutoff=0.7)
    if close:
        return f"rename it to '{close[0]}'"
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "name"
    stem = next((plain[len(p) :] for p in PREFIXES if plain.startswith(p)), plain)
    return f"remove it, or rename it to 'clinical_{stem}' if the model may use it"


def _read_csv(path: Path) -> RawTable:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        columns = [name.strip() for name in next(reader, [])]
        rows, start = [], reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((start, cells))
            start = reader.line_num + 1
    return RawTable(columns, rows)


def _read_parquet(path: Path) -> RawTable:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = [column.to_pylist() for column in table.columns]
    rows = [
        (number, [cell_text(value) for value in cells])
        for number, cells in enumerate(zip(*columns, strict=True), start=2)
    ]
    return RawTable([str(name) for name in table.column_names], rows)


def cell_text(value: object) -> str:
    """Return a value as the text that a CSV file would hold; nothing for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _file_problem(path: Path, what: str, cure: str) -> ManifestError:
    return ManifestError(str(path), [RowProblem(None, "(whole file)", path.name, what, cure)])
