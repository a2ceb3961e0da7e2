"""Run one worker process: build each extractor once, then turn items into feature files.

Nothing that goes wrong with an item leaves `extract_item` as an exception: it becomes the
item's recorded outcome. Only the death of the process itself is left to the caller.
"""

import json
import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client.extract.encoders.tile_encoder import Device, prefer_device
from client.extract.kinds.extractor import (
    PROBLEMS,
    AnyExtractor,
    NothingToExtract,
    create_extractor,
)
from client.extract.run.item_state import ItemProblem, Outcome, StateStore
from common.cohort.features_h5 import FINGERPRINT, FeatureFile, feature_path, write_features
from common.cohort.manifest import PatientRow
from common.errors import ErrorCode, ExtractionError, TumorboardError
from common.storage.full_disk import disk_full_of
from common.study.study import FeatureSpec

INPUT_DIGEST = "input_digest"
"""Attribute of a feature file: the digest of the raw input it was made from."""

_SINGLE_THREADED = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class WorkItem:
    """One patient and feature set to extract."""

    feature: str
    row: PatientRow
    input_digest: str

    @property
    def name(self) -> str:
        """What the user sees."""
        return f"{self.row.patient_id}, {self.feature}"


@dataclass(frozen=True)
class ItemResult:
    """How an item ended."""

    outcome: Outcome
    tokens: int | None = None
    problems: list[ItemProblem] = field(default_factory=list)


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker must know; crosses to another process.

    Attributes:
        store: The feature store.
        specs: Feature set -> its `FeatureSpec` as JSON.
        device: What `auto` means.
    """

    store: Path
    specs: Mapping[str, str]
    device: Device


class Worker:
    """Extracts items into one feature store."""

    def __init__(self, setup: WorkerSetup) -> None:
        prefer_device(setup.device)
        self._setup = setup
        self._states = StateStore(setup.store)
        self._extractors: dict[str, AnyExtractor] = {}

    def extract(self, item: WorkItem) -> ItemResult:
        """Extract one item, write its feature file and record the outcome."""
        feature, patient = item.feature, item.row.patient_id
        path = feature_path(self._setup.store, feature, patient)
        extractor, spec = self._extractor(feature)
        self._states.begin(
            feature,
            patient,
            input_digest=item.input_digest,
            fingerprint=extractor.fingerprint,
            pid=os.getpid(),
        )
        result = _attempt(extractor, spec, item, path)
        if result.outcome != "done":
            path.unlink(missing_ok=True)  # it was made from other input or another extractor
        self._states.finish(
            feature, patient, result.outcome, tokens=result.tokens, problems=result.problems
        )
        return result

    def _extractor(self, feature: str) -> tuple[AnyExtractor, FeatureSpec]:
        spec = FeatureSpec.model_validate_json(self._setup.specs[feature])
        if feature not in self._extractors:
            self._extractors[feature] = create_extractor(feature, spec)
        return self._extractors[feature], spec


def _attempt(extractor: AnyExtractor, spec: FeatureSpec, item: WorkItem, path: Path) -> ItemResult:
    try:
        file = extractor.extract(item.row)
        _check_width(file, spec)
        file.attrs |= {FINGERPRINT: extractor.fingerprint, INPUT_DIGEST: item.input_digest}
        write_features(path, file)
    except NothingToExtract as error:
        return ItemResult("empty", problems=[_problem(error)])
    except TumorboardError as error:
        return ItemResult("failed", problems=[_problem(error)])
    except Exception as error:  # a library failed on one file: the others go on
        full = disk_full_of(error)
        if full is not None:
            return ItemResult("failed", problems=[_problem(full)])
        trace = "".join(traceback.format_exception(error)[-6:])
        reason = f"unexpected {type(error).__name__}: {error}"
        problem = ItemProblem(code=ErrorCode.INTERNAL, reason=reason[:500], why=trace[-4000:])
        return ItemResult("failed", problems=[problem])
    return ItemResult("done", tokens=len(file.features), problems=_set_aside(file))


def _check_width(file: FeatureFile, spec: FeatureSpec) -> None:
    if file.features.ndim != 2 or file.features.shape[1] != spec.dim:
        raise ExtractionError(
            f"the extractor gave features of shape {file.features.shape}",
            why=f"the study says (tokens, {spec.dim})",
            cure="correct dim in the study",
        )


def _problem(error: TumorboardError) -> ItemProblem:
    return ItemProblem(
        code=error.code, reason=error.what, where=error.where, why=error.why, cure=error.cure
    )


def _set_aside(file: FeatureFile) -> list[ItemProblem]:
    return [ItemProblem(**entry) for entry in json.loads(str(file.attrs.get(PROBLEMS, "[]")))]


_worker: list[Worker] = []


def start_worker(setup: WorkerSetup) -> None:
    """Prepare this process; the initializer of the process pool."""
    for name in _SINGLE_THREADED:  # before the libraries that read them are loaded
        os.environ.setdefault(name, "1")
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker[:] = [Worker(setup)]


def extract_item(item: WorkItem) -> ItemResult:
    """Extract one item in this process."""
    return _worker[0].extract(item)


def _die_with_parent() -> None:
    """End this process when the parent is killed; otherwise it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
