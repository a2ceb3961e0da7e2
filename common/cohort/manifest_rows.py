"""Validate the cells of one manifest row; problems are collected, never raised."""

import re
from pathlib import Path

from common.cohort.manifest_table import PATIENT_ID_PATTERN, Header
from common.cohort.outcomes import (
    LONGEST_MONTHS,
    MONTHS_PER_UNIT,
    is_missing,
    parse_binary,
    parse_number,
    to_months,
)
from common.errors import RowProblem
from common.study.modalities import COLUMNS, Column

Value = str | float | None

_RESERVED = frozenset({"con", "prn", "aux", "nul"})
_VALUE_MISSING = frozenset({"", "na", "n/a", "nan", "null"})


class RowReader:
    """Reads rows one by one and remembers what may stand only once."""

    def __init__(self, header: Header, root: Path) -> None:
        self.problems: list[RowProblem] = []
        self._header, self._root = header, root
        self._seen_ids: dict[str, int] = {}
        self._seen_files: dict[Path, tuple[int, str, bool]] = {}
        self._own: set[Path] = set()  # images accepted on the present row
        self._number = 0
        self._cells: list[str] = []

    def read(self, number: int, cells: list[str]) -> dict[str, object]:
        """Return the values of a `PatientRow`; problems are added to `self.problems`.

        Args:
            number: Line of the file, the header being line 1.
            cells: Cells of the row as text.
        """
        self._number, self._cells = number, cells
        self._own.clear()
        if len(cells) != self._header.width:
            what = f"the row has {len(cells)} cells, the header {self._header.width}"
            cure = 'put cells that contain a comma in quotes ("...") and keep empty ones'
            self._problem("patient_id", cells[0] if cells else "", what, cure)
            return {}
        return {
            "patient_id": self._patient_id(),
            **{column.field: self._read(column) for column in COLUMNS},
            "response": self._binary("response"),
            **self._survival(),
        }

    def _read(self, column: Column) -> object:
        """Return the cells of a column, or of all columns with its prefix by what follows it."""
        if column.holds == "files":
            return self._files(column.name)
        if column.holds == "table":
            return self._file(column.name, self._cell(column.name))
        names = self._header.named[column.name]
        if column.holds == "value":
            return {name: self._value(f"{column.name}{name}") for name in names}
        images = {name: self._image(column, name) for name in names}
        return {name: path for name, path in images.items() if path is not None}

    def _cell(self, column: str) -> str:
        position = self._header.position.get(column)
        return "" if position is None else self._cells[position].strip()

    def _problem(self, column: str, value: str, what: str, cure: str) -> None:
        self.problems.append(RowProblem(self._number, column, value, what, cure))

    def _patient_id(self) -> str:
        if "patient_id" not in self._header.position:
            return ""
        value = self._cell("patient_id")
        if not re.fullmatch(PATIENT_ID_PATTERN, value) or value.lower().split(".")[0] in _RESERVED:
            what = "not a usable identifier" if value else "the patient has no identifier"
            cure = "use letters, digits, '_', '-' and '.', at most 128; it names files"
            self._problem("patient_id", value, what, cure)
            return value
        # Feature files of 'p1' and 'P1' would be one file on some systems.
        first = self._seen_ids.setdefault(value.lower(), self._number)
        if first != self._number:
            what = f"duplicate patient, first on row {first}"
            cure = "give each patient one row; list several slides with ';'"
            self._problem("patient_id", value, what, cure)
        return value

    def _files(self, column: str) -> list[Path]:
        cell = self._cell(column)
        if is_missing(cell):
            return []
        paths = []
        for part in (part.strip() for part in cell.split(";")):
            path = self._file(column, part) if part else None
            if path is not None and self._is_own(column, part, path):
                paths.append(path)
        return paths

    def _image(self, column: Column, name: str) -> Path | None:
        at = f"{column.name}{name}"
        cell = self._cell(at)
        path = self._file(at, cell, folder_allowed=column.holds == "image")
        if path is None or not self._is_own(at, cell, path, shared=column.holds == "mask"):
            return None
        if column.needs and is_missing(self._cell(f"{column.needs}{name}")):
            what = f"a {column.holds} without its {column.needs.rstrip('_')}"
            self._problem(at, cell, what, f"fill '{column.needs}{name}' or empty this cell")
        return path

    def _file(self, column: str, cell: str, *, folder_allowed: bool = False) -> Path | None:
        if is_missing(cell):
            return None
        try:
            path = (self._root / cell).resolve()
            exists = path.is_file() or (folder_allowed and path.is_dir())
        except (OSError, ValueError, RuntimeError):
            exists, path = False, self._root
        if not exists:
            kind = "file or folder" if folder_allowed else "file"
            cure = f"correct the path; relative paths start at {self._root}"
            self._problem(column, cell, f"no such {kind}", cure)
            return None
        return path

    def _is_own(self, column: str, cell: str, path: Path, *, shared: bool = False) -> bool:
        """Refuse an image listed twice: one patient's image must not stand for another's.

        Sequences of one patient may share a mask, since they often share a grid.
        """
        own = (self._number, column, shared)
        first = self._seen_files.setdefault(path, own)
        is_first = first == own and path not in self._own
        if is_first or (shared and first[0] == self._number and first[2]):
            self._own.add(path)
            return True
        what = f"the same image is already listed on row {first[0]} in '{first[1]}'"
        self._problem(column, cell, what, "list each image once, for the patient it shows")
        return False

    def _value(self, column: str) -> Value:
        cell = self._cell(column)
        if cell.lower() in _VALUE_MISSING:
            return None
        try:
            float(cell)
        except ValueError:
            return cell
        try:
            return parse_number(cell)
        except ValueError as error:
            self._problem(column, cell, str(error), "correct it or leave it empty")
            return None

    def _binary(self, column: str) -> int | None:
        cell = self._cell(column)
        try:
            return parse_binary(cell)
        except ValueError as error:
            self._problem(column, cell, str(error), "write 1 or 0, or leave it empty")
            return None

    def _survival(self) -> dict[str, object]:
        column = "time_months" if "time_months" in self._header.position else "time"
        time_cell, event_cell = self._cell(column), self._cell("event")
        event = self._binary("event")
        if is_missing(time_cell):
            if event is not None:
                what = "an event without its time"
                self._problem("event", event_cell, what, f"fill '{column}' or empty this cell")
            return {"time_months": None, "event": None}
        months = self._months(column, time_cell)
        if is_missing(event_cell) and "event" in self._header.position:
            what = "a time without an event"
            cure = "write 1 (died) or 0 (alive when last seen), or empty the time"
            self._problem("event", event_cell, what, cure)
        return {"time_months": months, "event": event}

    def _months(self, column: str, cell: str) -> float | None:
        try:
            value = parse_number(cell)
        except ValueError as error:
            self._problem(column, cell, str(error), "correct it or leave it empty")
            return None
        unit = "months"
        if column == "time" and "time_unit" in self._header.position:
            unit = self._cell("time_unit")
            if unit not in MONTHS_PER_UNIT:
                what = "unknown unit of time" if unit else "the time has no unit"
                self._problem("time_unit", unit, what, "write days, months or years")
                return None
        months = to_months(value, unit)
        if months < 0:
            self._problem(column, cell, "negative time", "count from the study's time zero")
            return None
        if months > LONGEST_MONTHS:
            what = f"a follow-up of {months / 12:.0f} years"
            self._problem(column, cell, what, "check the unit of time")
            return None
        return months
