"""Refuse unusable data before a dataset is built: foreign feature files, impossible tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.data.bags import Bag, check_finite, check_shape
from common.cohort.features_h5 import FINGERPRINT, feature_path, read_header
from common.errors import DataError, ErrorCode, FeatureError
from common.study.study import FeatureSpec, Study

Labels = npt.NDArray[np.float32]
Bags = Mapping[str, Sequence[npt.NDArray[np.floating] | None]]


def find_files(name: str, spec: FeatureSpec, store: Path, ids: Sequence[str]) -> dict[str, Bag]:
    """Return the feature file of each patient who has one, widths and fingerprints checked.

    Raises:
        FeatureError: A file is damaged or of another shape; with code FEATURE_FINGERPRINT if
            it was made by another extractor than the study's, or, where the study names none,
            by another than most of its neighbours.
    """
    files: dict[str, Bag] = {}
    made_by: dict[str, str | None] = {}
    for patient in ids:
        path = feature_path(store, name, patient)
        if path.is_file():
            shape, attrs = read_header(path)
            check_shape(name, spec, shape, str(path))
            files[patient] = path
            made_by[patient] = str(attrs[FINGERPRINT]) if FINGERPRINT in attrs else None
    usual = Counter(made_by.values()).most_common(1)[0][0] if made_by else None
    usual_digest = spec.fingerprint if spec.fingerprint is not None else usual
    for patient, fingerprint in made_by.items():
        if fingerprint != usual_digest:
            digest, study_digest = (
                value or "no fingerprint" for value in (fingerprint, usual_digest)
            )
            source = "the study says" if spec.fingerprint is not None else "most other files carry"
            raise FeatureError(
                f"feature set '{name}' holds a file of another extractor",
                where=str(feature_path(store, name, patient)),
                why=f"the file carries {digest:.16}, {source} {study_digest:.16}; features of "
                "two encoders mean different things",
                cure=f"delete {store / name} and run `tumorboard site extract` with the study's "
                "extractor",
                code=ErrorCode.FEATURE_FINGERPRINT,
            )
    return files


def check_bags(
    name: str,
    spec: FeatureSpec,
    ids: Sequence[str],
    bags: Sequence[npt.NDArray[np.floating] | None],
) -> dict[str, Bag]:
    """Return the bags of patients who have one, as (T, D) float32.

    Raises:
        FeatureError: A bag has the wrong shape or is not finite.
    """
    bags_of: dict[str, Bag] = {}
    for patient, bag in zip(ids, bags, strict=False):
        if bag is None:
            continue
        with np.errstate(over="ignore"):
            values = np.atleast_2d(np.asarray(bag, dtype=np.float32))
        where = f"feature set {name}, patient {patient}"
        check_shape(name, spec, values.shape, where)
        check_finite(values, where)
        bags_of[patient] = values
    return bags_of


def check_table(
    study: Study,
    ids: Sequence[str],
    features: Bags,
    labels: tuple[Labels, Labels, Labels],
    *,
    n_records: int,
) -> None:
    """Refuse a table that cannot be a cohort.

    Raises:
        DataError: With every problem found.
    """
    n = len(ids)
    problems = [] if n else ["there is no patient"]
    twice = sorted(patient for patient, count in Counter(ids).items() if count > 1)
    problems += [f"patient '{patient}' occurs twice" for patient in twice]
    for name, bags in features.items():
        if name not in study.features:
            names = ", ".join(sorted(study.features))
            problems.append(f"feature set '{name}' is not in the study (it has {names})")
        elif len(bags) != n:
            problems.append(f"feature set '{name}' has {len(bags)} bags for {n} patients")
    if n_records != n:
        problems.append(f"{n_records} clinical records for {n} patients")
    columns = zip(("response", "time_months", "event"), labels, strict=True)
    for name, values in columns:
        problems += _check_label(name, values, n)
    if problems:
        raise DataError(
            f"{len(problems)} problem(s) in the arrays: {'; '.join(problems)}",
            where="PatientDataset.from_arrays",
            why="a patient that is read wrongly trains a wrong model",
            cure="correct the arrays named above",
        )


def _check_label(name: str, values: Labels, n: int) -> list[str]:
    if values.shape != (n,):
        return [f"{name} has shape {values.shape}, expected ({n},)"]
    labels = values[~np.isnan(values)]
    if name == "time_months":
        bad = labels[~((labels >= 0) & np.isfinite(labels))]
        return [f"{name} holds {bad[0]}; it must be finite and >= 0"] if len(bad) else []
    bad = labels[(labels != 0) & (labels != 1)]
    return [f"{name} holds {bad[0]}; it must be 0, 1 or NaN"] if len(bad) else []
