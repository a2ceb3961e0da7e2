"""Read the hospital's expression table, patients x genes, once per process."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.errors import ExtractionError


class RnaTable:
    """Expression values of the wanted genes.

    Attributes:
        genes: Wanted genes that the table holds.
    """

    def __init__(self, path: Path, genes: Sequence[str]) -> None:
        frame = _read_frame(path, genes)
        ids = frame.iloc[:, 0].astype(str).str.strip()
        if ids.duplicated().any():
            twice = str(ids[ids.duplicated()].iloc[0])
            raise _refused(path, f"patient '{twice}' has two rows", "keep one row per patient")
        values = frame.iloc[:, 1:]
        self.path = path
        self.genes = [str(name) for name in values.columns]
        self._row = {patient: index for index, patient in enumerate(ids)}
        self._values = _numbers(path, values, ids)

    def __contains__(self, patient_id: str) -> bool:
        """Return whether the table has a row of this patient."""
        return patient_id in self._row

    def values(self, patient_id: str) -> npt.NDArray[np.float64]:
        """Return (G,) values in the order of `genes`; NaN where not measured."""
        values: npt.NDArray[np.float64] = self._values[self._row[patient_id]]
        return values


def rna_table(path: Path, genes: tuple[str, ...]) -> RnaTable:
    """Return the table of the wanted genes, from memory if the file has not changed.

    Args:
        path: CSV (also .csv.gz) or Parquet; the first column names the patients.
        genes: Gene symbols, as the columns are named.

    Raises:
        ExtractionError: The table is unreadable, names a patient or gene twice, or holds text
            or infinity in a wanted gene.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise _refused(path, str(error), "check the path in the manifest") from error
    return _cached(path, stat.st_mtime_ns, stat.st_size, genes)


@lru_cache(maxsize=4)
def _cached(path: Path, _mtime_ns: int, _size: int, genes: tuple[str, ...]) -> RnaTable:
    return RnaTable(path, genes)


def _read_frame(path: Path, genes: Sequence[str]) -> pd.DataFrame:
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            import pyarrow.parquet

            columns = pyarrow.parquet.read_schema(path).names
            usecols = _chosen(path, [str(name) for name in columns], genes)
            return pd.read_parquet(path, columns=usecols)[usecols]
        header = pd.read_csv(path, nrows=1, header=None, dtype=str).iloc[0].fillna("")
        columns = [str(name).strip() for name in header]
        usecols = _chosen(path, columns, genes)
        positions = [columns.index(name) for name in usecols]
        frame = pd.read_csv(path, usecols=positions, dtype={columns[0]: str}, low_memory=False)
        frame.columns = pd.Index([columns[i] for i in sorted(positions)])
        return frame
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        cure = "save it as CSV (UTF-8, commas) or Parquet, patients down, genes across"
        raise _refused(path, " ".join(str(error).split()), cure) from error


def _chosen(path: Path, columns: list[str], genes: Sequence[str]) -> list[str]:
    """Return the patient column, then the wanted genes in the order of the table."""
    keep = set(genes)
    usecols = [columns[0], *(name for name in columns[1:] if name in keep)]
    if len(set(usecols)) != len(usecols):
        twice = next(name for name in usecols if usecols.count(name) > 1)
        raise _refused(path, f"gene '{twice}' has two columns", "keep one column a gene")
    return usecols


def _numbers(path: Path, values: pd.DataFrame, ids: pd.Series) -> npt.NDArray[np.float64]:
    for gene in values.columns[[not pd.api.types.is_numeric_dtype(t) for t in values.dtypes]]:
        numbers = pd.to_numeric(values[gene], errors="coerce")
        bad = numbers.isna() & values[gene].notna()
        if bad.any():
            where = f"patient '{ids[bad].iloc[0]}', gene '{gene}'"
            why = f"{where}: '{values[gene][bad].iloc[0]}' is not a number"
            raise _refused(path, why, "correct it, or leave the cell empty")
    array: npt.NDArray[np.float64] = values.apply(pd.to_numeric).to_numpy(dtype=np.float64)
    infinite = np.argwhere(np.isinf(array))
    if len(infinite):
        row, column = infinite[0]
        why = f"patient '{ids.iloc[row]}', gene '{values.columns[column]}': infinite"
        raise _refused(path, why, "correct it, or leave the cell empty")
    return array


def _refused(path: Path, why: str, cure: str) -> ExtractionError:
    return ExtractionError("the RNA table cannot be used", where=str(path), why=why, cure=cure)
