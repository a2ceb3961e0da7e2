"""Extract a whole manifest in parallel; resumable item by item, never stopped by one failure.

An item is a patient and a feature set. It is skipped when its feature file was made from the
same raw input by the same extractor, so the same command continues where a killed one stopped.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from client.extract.encoders.tile_encoder import Device
from client.extract.kinds.extractor import AnyExtractor, create_extractor
from client.extract.run.extraction_summary import ExtractionSummary, ItemFailure
from client.extract.run.input_digest import InputDigester
from client.extract.run.item_state import ItemProblem, StateStore
from client.extract.run.surviving_pool import extract_all
from client.extract.run.worker import INPUT_DIGEST, ItemResult, Worker, WorkerSetup, WorkItem
from common.cohort.features_h5 import FINGERPRINT, feature_path, read_header
from common.cohort.manifest import Manifest, PatientRow
from common.commands.cli_output import Output
from common.errors import ConfigError, ErrorCode, ExtractionError, FeatureError
from common.storage.file_lock import held_alone
from common.study.study import FeatureSpec


def run_extraction(
    manifest: Manifest,
    features: Mapping[str, FeatureSpec],
    store: Path,
    *,
    workers: int,
    output: Output,
    device: Device = "auto",
) -> ExtractionSummary:
    """Extract what is missing or out of date, and return what was done.

    Feature sets without an extractor, and feature files that another program made, are left as
    they are.

    Args:
        manifest: The hospital's patients.
        features: Feature sets of the study.
        store: Feature store, created if need be.
        workers: Processes; 0 works in this one, without protection against crashes.
        output: Shows progress.
        device: Where encoders run; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: An extractor cannot be built, or is not the one whose fingerprint the study
            states; nothing was extracted.
        ExtractionError: Another extraction into this store is running, or workers cannot start.
    """
    extracted_sets = {name: spec for name, spec in features.items() if spec.extractor is not None}
    extractors = {name: _checked_extractor(name, spec) for name, spec in extracted_sets.items()}
    running = ExtractionError(
        "another extraction into this feature store is running",
        where=str(store),
        why="two at once would do the same work twice",
        cure="wait for it, or stop it and run this command again",
    )
    with held_alone(StateStore(store).folder / "lock", running):
        plan = _Plan(store, extractors)
        plan.make(manifest, workers, output)
        specs = {name: spec.model_dump_json() for name, spec in extracted_sets.items()}
        setup = WorkerSetup(store, specs, device)
        with output.progress(len(plan.items), "extracting") as progress:
            for item, result in _results(plan, setup, workers):
                plan.record(item, result)
                progress.advance(note=item.name)
    plan.summary.sort()
    return plan.summary


@dataclass
class _Plan:
    """What is to be done, and what came of it."""

    store: Path
    extractors: Mapping[str, AnyExtractor]
    items: list[WorkItem] = field(default_factory=list)
    summary: ExtractionSummary = field(default_factory=ExtractionSummary)

    def __post_init__(self) -> None:
        self.states = StateStore(self.store)

    def make(self, manifest: Manifest, workers: int, output: Output) -> None:
        """Sort every patient and feature set into absent, up to date and to do."""
        pairs = [(name, row) for name in self.extractors for row in manifest.rows]
        digester = InputDigester()

        def digest(pair: tuple[str, PatientRow]) -> str | OSError | None:
            extractor = self.extractors[pair[0]]
            paths, values = extractor.inputs(pair[1]), extractor.values(pair[1])
            try:
                return digester.digest(paths, values) if paths or values else None
            except OSError as error:
                return error

        with (
            ThreadPoolExecutor(max_workers=max(1, 2 * workers)) as threads,
            output.progress(len(pairs), "checking raw files") as progress,
        ):
            for (name, row), digest_or_error in zip(pairs, threads.map(digest, pairs), strict=True):
                self._sort(name, row, digest_or_error)
                progress.advance()

    def _sort(self, name: str, row: PatientRow, digest: str | OSError | None) -> None:
        if digest is None:
            self.summary.absent += 1
        elif isinstance(digest, OSError):
            self._unreadable(name, row, digest)
        elif self._up_to_date(name, row, digest):
            self.summary.skipped += 1
        else:
            self.items.append(WorkItem(name, row, digest))

    def _up_to_date(self, name: str, row: PatientRow, digest: str) -> bool:
        """Return whether nothing is to be done; repeat what was wrong with the item before."""
        fingerprint = self.extractors[name].fingerprint
        outcome = self.states.load(name, row.patient_id).settled(digest, fingerprint)
        if outcome and outcome.outcome == "empty":
            self._name(self.summary.empty, name, row.patient_id, outcome.problems)
            return True
        path = feature_path(self.store, name, row.patient_id)
        if not path.is_file():
            return False
        try:
            attrs = read_header(path)[1]
        except FeatureError:
            return False
        if FINGERPRINT not in attrs:
            return True  # brought ready-made
        same = (attrs[FINGERPRINT], attrs.get(INPUT_DIGEST)) == (fingerprint, digest)
        if same and outcome:
            self._name(self.summary.set_aside, name, row.patient_id, outcome.problems)
        return same

    def _unreadable(self, name: str, row: PatientRow, error: OSError) -> None:
        problem = ItemProblem(
            code=ErrorCode.EXTRACTION,
            reason=f"a raw file cannot be read: {error.strerror or error}",
            where=str(error.filename or ""),
            cure="check that the file exists and may be read",
        )
        fingerprint = self.extractors[name].fingerprint
        self.states.begin(name, row.patient_id, input_digest="", fingerprint=fingerprint, pid=0)
        self.states.finish(name, row.patient_id, "failed", problems=[problem])
        self._name(self.summary.failed, name, row.patient_id, [problem])

    def record(self, item: WorkItem, result: ItemResult | None) -> None:
        """Enter one result; None = the item killed its process twice."""
        patient = item.row.patient_id
        if result is None:
            problem = ItemProblem(
                code=ErrorCode.EXTRACTION,
                reason="the worker process died twice on this item",
                why="most often it ran out of memory; else a native library crashed",
                cure="free memory or use fewer workers, and look at the raw file",
            )
            self.states.finish(item.feature, patient, "failed", problems=[problem])
            self._name(self.summary.failed, item.feature, patient, [problem])
        elif result.outcome == "done":
            self.summary.done += 1
            self._name(self.summary.set_aside, item.feature, patient, result.problems)
        else:
            into = self.summary.empty if result.outcome == "empty" else self.summary.failed
            self._name(into, item.feature, patient, result.problems)

    def was_running(self, item: WorkItem) -> bool:
        """Return whether a worker had begun the item and never ended it."""
        last = self.states.load(item.feature, item.row.patient_id).last
        return last is not None and last.outcome == "running"

    @staticmethod
    def _name(
        into: list[ItemFailure], feature: str, patient: str, problems: list[ItemProblem]
    ) -> None:
        for problem in problems:
            key = (problem.code, problem.reason, problem.where, problem.cure)
            into.append(ItemFailure(patient, feature, *key))


def _results(
    plan: _Plan, setup: WorkerSetup, workers: int
) -> Iterator[tuple[WorkItem, ItemResult | None]]:
    if workers > 0:
        yield from extract_all(plan.items, setup, workers=workers, was_running=plan.was_running)
        return
    worker = Worker(setup)
    for item in plan.items:
        yield item, worker.extract(item)


def _checked_extractor(name: str, spec: FeatureSpec) -> AnyExtractor:
    extractor = create_extractor(name, spec)
    if spec.fingerprint is not None and spec.fingerprint != extractor.fingerprint:
        raise ConfigError(
            f"the extractor of '{name}' is not the one the study was agreed on",
            where=f"features.{name}.fingerprint",
            why=f"the study says {spec.fingerprint}, this installation gives "
            f"{extractor.fingerprint}: other parameters, weights or program version",
            cure="install the version of the program and the weights the study names",
            code=ErrorCode.FEATURE_FINGERPRINT,
        )
    return extractor
