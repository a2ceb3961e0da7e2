"""Build a cohort from one table of patients; every problem of the table is reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.cohort.manifest_rows import RowReader
from common.cohort.manifest_table import RawTable, cell_text, check_header, read_table
from common.cohort.outcomes import MISSING, parse_number
from common.errors import ManifestError, RowProblem
from common.study.study import IDENTIFIER, FeatureSpec
from simulations.cohorts.cohort import Cohort, FloatArray
from simulations.cohorts.cohort_columns import CohortColumns, TableFeatures

SHOWN = 5
"""Cells of one column that are named one by one; the others are counted."""

Bags = list[npt.NDArray[np.float32] | None]


def read_cohort(
    table: pd.DataFrame | Path | str,
    columns: CohortColumns | Mapping[str, Any],
    *,
    name: str = "cohort",
    notes: Sequence[str] = (),
) -> Cohort:
    """Return the cohort that a table describes.

    A patient lacks a feature set whose columns are all empty; a single empty cell counts as the
    public centre of its scaling, and a note says how many there are. Clinical columns of text
    become one column per level but the first.

    Args:
        table: DataFrame, or a CSV or Parquet file; one row per patient. A DataFrame is faster
            for tables of some million cells.
        columns: What the columns are; a mapping of the same keys will do.
        name: Short name of the cohort; letters, digits, '_', '-', '.'.
        notes: Sentences every report over this cohort must show.

    Raises:
        ConfigError: `columns` holds an unknown or wrong key.
        ManifestError: With every problem: absent columns, duplicate patients, patients without a
            hospital, cells that are no number, impossible outcomes, hospitals without a usable
            patient. Rows count as in the file (header = 1), or from 0 in a DataFrame.

    Example:
        >>> patients = pd.DataFrame(
        ...     {
        ...         "patient_id": ["p1", "p2", "p3"],
        ...         "hospital": ["north", "north", "south"],
        ...         "died": [1, 0, 1],
        ...         "months": [3.0, 20.0, 8.5],
        ...         "age": [61, 48, 70],
        ...     }
        ... )
        >>> columns = {"time": "months", "event": "died", "features": {"clinical": ["age"]}}
        >>> read_cohort(patients, columns)
        Cohort cohort: 3 patients, 2 hospitals, clinical (1)
    """
    if not isinstance(columns, CohortColumns):
        columns = CohortColumns.from_mapping(dict(columns), where="columns of the cohort")
    reader = _TableReader(table, columns)
    cohort = reader.cohort(name, notes)
    if reader.problems:
        raise ManifestError(reader.where, list(dict.fromkeys(reader.problems)))
    return cohort


class _TableReader:
    """Reads a table once; problems are collected, never raised."""

    def __init__(self, table: pd.DataFrame | Path | str, columns: CohortColumns) -> None:
        self.problems: list[RowProblem] = []
        self._columns = columns
        if isinstance(table, pd.DataFrame):
            self.where = "DataFrame, rows counted from 0"
            self._rows = list(range(len(table)))
            frame = table.rename(columns=str).reset_index(drop=True)
        else:
            self.where = str(table)
            raw = read_table(Path(table))
            self._rows = [number for number, _ in raw.rows]
            frame = self._rectangle(raw)
        self._frame = frame.loc[:, ~frame.columns.duplicated()]
        for column in frame.columns[frame.columns.duplicated()].unique():
            self._problem(None, column, column, "the column occurs twice", "keep one of the two")
        self._check_columns()

    def cohort(self, name: str, notes: Sequence[str]) -> Cohort:
        """Return the cohort, to be used only if no problem was found."""
        patients = self._patients()
        features: dict[str, Bags] = {}
        specs: dict[str, FeatureSpec] = {}
        empty = 0
        for key, feature_columns in self._columns.features.items():
            specs[key], features[key], n_filled = self._features(feature_columns)
            empty += n_filled
        if empty:
            notes = [*notes, f"{empty} empty feature cells count as the public centre."]
        cohort = Cohort(
            name=name,
            patient_ids=[str(patient.get("patient_id")) for patient in patients],
            hospital=self._hospitals(),
            specs=specs,
            features=features,
            response=_outcome(patients, "response"),
            time_months=_outcome(patients, "time_months"),
            event=_outcome(patients, "event"),
            clinical=numeric_columns(self._clinical()),
            notes=tuple(notes),
        )
        self._check_hospitals(cohort)
        return cohort

    def _problem(self, place: int | None, column: str, value: object, what: str, cure: str) -> None:
        row = None if place is None else self._rows[place]
        self.problems.append(RowProblem(row, column, str(value), what, cure))

    def _rectangle(self, raw: RawTable) -> pd.DataFrame:
        width = len(raw.columns)
        for place, (_, cells) in enumerate(raw.rows):
            if len(cells) != width:
                what = f"the row has {len(cells)} cells, the header {width}"
                cure = 'put cells that contain a comma in quotes ("...") and keep empty ones'
                self._problem(place, raw.columns[0], cells[0], what, cure)
        rows = [(cells + [""] * width)[:width] for _, cells in raw.rows]
        return pd.DataFrame(rows, columns=pd.Index(raw.columns), dtype=object)

    def _check_columns(self) -> None:
        columns = self._columns
        for name in (*columns.roles, *columns.clinical):
            if name not in self._frame:
                self._absent(name)
        for pattern in (p for features in columns.features.values() for p in features.columns):
            if pattern in columns.roles:
                what = "an identifier or outcome cannot be a feature"
                self._problem(None, pattern, pattern, what, "take it off the feature columns")
            elif not columns.matching([pattern], self._frame.columns):
                self._absent(pattern)
        if (columns.time is None) != (columns.event is None):
            cure = "name both `time` and `event`, or neither"
            self._problem(None, "time", "", "survival needs a time and an event", cure)
        elif columns.response is None and columns.time is None:
            cure = "name the column of `response`, or those of `time` and `event`"
            self._problem(None, "response", "", "no outcome is named", cure)
        if not self._rows:
            cure = "add one row per patient"
            self._problem(None, columns.patient, "", "the table has no patient", cure)

    def _absent(self, name: str) -> None:
        close = difflib.get_close_matches(name, self._frame.columns, n=1)
        names = ", ".join(self._frame.columns[:10])
        cure = f"did you mean '{close[0]}'?" if close else f"choose among: {names}"
        self._problem(None, name, name, "the table has no such column", cure)

    def _patients(self) -> list[dict[str, object]]:
        """Return identifiers and outcomes, read by the rules of a hospital's manifest."""
        here = {key: column for column, key in self._columns.roles.items() if column in self._frame}
        column_of = {"patient_id" if k == "patient" else k: c for k, c in here.items()}
        column_of.pop("hospital", None)
        if "time" in column_of and "event" in column_of:
            column_of["time_unit"] = ""
        else:  # reported once, not again for every patient
            column_of = {k: c for k, c in column_of.items() if k not in ("time", "event")}
        header = check_header(RawTable(list(column_of), []))
        reader = RowReader(header, Path())
        unit = [self._columns.time_unit] * len(self._rows)
        cells = [self._texts(column) if column else unit for column in column_of.values()]
        patients = [
            reader.read(number, [column[place] for column in cells])
            for place, number in enumerate(self._rows)
        ]
        self.problems += [
            replace(problem, column=column_of[problem.column]) for problem in reader.problems
        ]
        return patients

    def _texts(self, column: str) -> list[str]:
        values = self._frame[column]
        return [cell_text(value) for value in values.astype(object).where(values.notna(), None)]

    def _hospitals(self) -> npt.NDArray[np.str_]:
        column = self._columns.hospital
        if column not in self._frame:
            return np.full(len(self._rows), "", dtype=np.str_)
        names = [text.strip() for text in self._texts(column)]
        for place, name in enumerate(names):
            if not re.fullmatch(IDENTIFIER, name):
                what = "not a usable name of a hospital" if name else "the patient has no hospital"
                cure = "use letters, digits, '_', '-' and '.', at most 64; it names the site"
                self._problem(place, column, name, what, cure)
        return np.array(names, dtype=np.str_)

    def _features(self, entry: TableFeatures) -> tuple[FeatureSpec, Bags, int]:
        """Return a feature set, its vectors, and how many empty cells were filled."""
        names = self._columns.matching(entry.columns, self._frame.columns)
        rows = np.full((len(self._rows), max(len(names), 1)), np.nan)
        for place, name in enumerate(names):
            rows[:, place] = self._numbers(name)
        spec = FeatureSpec(
            modality=entry.modality, dim=rows.shape[1], scaling=entry.scaling, names=names or None
        )
        empty, absent = np.isnan(rows), np.isnan(rows).all(axis=1)
        centre = np.resize(np.asarray(entry.scaling.center, dtype=np.float64), rows.shape[1])
        complete = np.where(empty, centre, rows).astype(np.float32)
        bags = [None if lacks else row[None] for lacks, row in zip(absent, complete, strict=True)]
        return spec, bags, int(empty[~absent].sum())

    def _cells(self, column: str) -> pd.Series[Any]:
        """Return a column with empty cells, and words that mean empty, as NaN."""
        cells = self._frame[column]
        if pd.api.types.is_numeric_dtype(cells):
            return cells
        texts = pd.Series(self._texts(column), dtype=object).str.strip()
        return texts.mask(texts.str.lower().isin(MISSING))

    def _numbers(self, column: str) -> FloatArray:
        """Return (n,) numbers, NaN where the cell is empty."""
        cells = self._cells(column)
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = np.flatnonzero(~np.isfinite(numbers) & cells.notna().to_numpy())
        for place in wrong[:SHOWN]:
            what = _why_no_number(str(cells.iloc[place]))
            self._problem(place, column, cells.iloc[place], what, "correct it or leave it empty")
        if len(wrong) > SHOWN:
            place, what = wrong[SHOWN], f"and {len(wrong) - SHOWN} such cells from here on"
            cure = "correct them, or do not name this column"
            self._problem(place, column, cells.iloc[place], what, cure)
        return numbers

    def _clinical(self) -> pd.DataFrame:
        """Return the clinical columns; words and numbers in one column are a problem."""
        features = [f for f in self._columns.features.values() if f.modality == "clinical"]
        patterns = self._columns.clinical or [p for entry in features for p in entry.columns]
        table = pd.DataFrame(index=range(len(self._rows)))
        for name in self._columns.matching(patterns, self._frame.columns):
            table[name] = self._cells(name)
            numeric = pd.to_numeric(table[name], errors="coerce").notna().any()
            if self._columns.clinical and numeric:
                table[name] = self._numbers(name)
        return table

    def _check_hospitals(self, cohort: Cohort) -> None:
        has_outcome = np.isfinite(cohort.response) | np.isfinite(cohort.time_months)
        has_feature = np.zeros(len(cohort), dtype=bool)
        for bags in cohort.features.values():
            has_feature |= np.array([bag is not None for bag in bags], dtype=bool)
        for name, count in cohort.hospitals.items():
            here = np.flatnonzero(cohort.hospital == name)
            if name and not (has_outcome & has_feature)[here].any():
                what = f"none of its {count} patients has both an outcome and a feature"
                place = int(here[0])
                self._problem(place, self._columns.hospital, name, what, "leave the hospital out")


def numeric_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return numbers as they are and text as one column per level but the first; NaN = missing."""
    columns: dict[str, pd.Series[float]] = {}
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.notna().sum() == table[name].notna().sum():
            columns[str(name)] = numbers.astype(np.float64)
            continue
        text = table[name].astype("string")
        for level in sorted(text.dropna().unique())[1:]:
            columns[f"{name}={level}"] = (text == level).astype(float).where(text.notna())
    return pd.DataFrame(columns, index=table.index)


def _outcome(patients: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    return np.array([patient.get(name) for patient in patients], dtype=np.float64)


def _why_no_number(cell: str) -> str:
    try:
        parse_number(cell)
    except ValueError as error:
        return str(error)
    return "it is not a finite number"
