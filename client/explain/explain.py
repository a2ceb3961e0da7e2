"""Write the explanations of a hospital's predictions: one folder per patient."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.data.bags import token_sample
from client.explain.attribution import Attribution, attribute
from client.explain.explanation import Explanation
from client.explain.pictures import BagView, bag_pictures
from client.explain.summary_picture import FEWEST_OTHERS, write_summary
from client.explain.text_report import patient_report
from client.extract.kinds.extractor import Extractor, InputNames, Kept, extractor_class
from client.predict.predict import PatientPrediction
from client.predict.predict_command import SitePredictions
from client.site.ledger_view import ledger_view
from client.site.site_folder import writable_folder
from common.cohort.batch import PatientBatch
from common.cohort.features_h5 import FeatureFile, feature_path, read_features
from common.commands.cli_output import Output
from common.errors import LedgerError
from common.storage.atomic_file import write_text
from common.study.site_policy import SitePolicy
from common.study.study import FeatureSpec, Study

TOP = 3
REPORT, SUMMARY = "report.txt", "summary.png"


@dataclass(frozen=True)
class Explained:
    """What was written about one patient, and what could not be shown."""

    files: list[Path]
    notes: list[str]


def explain_patients(
    done: SitePredictions, folder: Path, *, output: Output
) -> dict[str, Explained]:
    """Write explanations below `folder`; return what was written about each patient.

    Per patient: `prediction.json`, `report.txt`, `summary.png`; per slide an overlay (PNG) and
    its tiles for QuPath (GeoJSON); the slices that were read (PNG). A patient's files replace
    those of the last explanation together, or not at all.

    Args:
        done: The predictions to explain.
        folder: Made if need be; one folder per patient below it.
        output: Shows progress.

    Raises:
        ConfigError: The folder cannot be written, or an optional library is not installed.
        FeatureError: A feature file was damaged since the prediction.
    """
    writable_folder(folder, key="--explain")
    privacy = training_privacy(done.study, done.policy)
    explanations: dict[str, Explained] = {}
    with output.progress(len(done.predictions), "explaining patients") as progress:
        for prediction in done.predictions:
            target = folder / prediction.patient_id
            with patient_folder(target) as waiting:
                names, notes = _explain_one(done, prediction, privacy, waiting)
            files = [target / name for name in names]
            explanations[prediction.patient_id] = Explained(files, notes)
            progress.advance(note=prediction.patient_id)
    return explanations


def _explain_one(
    done: SitePredictions, prediction: PatientPrediction, privacy: list[str], folder: Path
) -> tuple[list[str], list[str]]:
    """Write one patient's files into an empty folder; return their names, and the notes."""
    index = done.dataset.patient_ids.index(prediction.patient_id)
    batch = done.dataset.batch([index]).to(done.device)
    attributions = [attribute(done.model, batch, task) for task in done.study.tasks]
    views = list(_bags(done, prediction.patient_id, batch))
    notes: list[str] = []
    for view in views:
        notes += bag_pictures(view, attributions, folder, synthetic=done.study.synthetic)
    write_summary(
        folder / SUMMARY,
        prediction,
        attributions,
        done.study.features,
        cohort=done.cohort,
        title=f"Patient {prediction.patient_id}",
        synthetic=done.study.synthetic,
    )
    rank, n_others = _risk_rank(prediction, done.cohort)
    explanation = Explanation(
        study=done.study,
        prediction=prediction,
        role=done.role(prediction.patient_id),
        why_missing=done.why_missing(prediction.patient_id),
        tokens_read={view.name: (len(view.kept), len(view.file.features)) for view in views},
        attributions=attributions,
        strongest={a.task: _strongest(a, views) for a in attributions if a.readable},
        risk_rank=rank,
        n_others=n_others,
        model_digest=done.model_digest,
        model_recorded=done.model_recorded,
        privacy=privacy,
        notes=notes,
    )
    write_text(folder / REPORT, patient_report(explanation))
    names = sorted(file.name for file in folder.iterdir())
    record = {**explanation.as_dict(), "files": names}
    write_text(folder / RECORD, json.dumps(record, indent=1, allow_nan=False))
    return [RECORD, *names], notes


def _bags(done: SitePredictions, patient_id: str, batch: PatientBatch) -> Iterator[BagView]:
    """Yield every feature set that the model read of a patient."""
    with torch.no_grad():
        attention = done.model(batch).attention
    for name, spec in done.model.features.items():
        if not bool(batch.present[name][0]):
            continue
        path = feature_path(done.policy.feature_store, name, patient_id)
        file = read_features(path)
        weights: npt.NDArray[np.float64] | None = None
        if name in attention:
            weights = attention[name][0].double().cpu().numpy()
        yield BagView(
            name=name,
            spec=spec,
            row=done.manifest.row(patient_id),
            file=file,
            where=str(path),
            kept=token_sample(name, patient_id, len(file.features), spec.max_tokens),
            attention=weights,
        )


def _strongest(
    attribution: Attribution, views: list[BagView]
) -> dict[str, list[tuple[str, float]]]:
    """Return feature set -> its named inputs with the largest attribution."""
    strongest = {}
    for view in views:
        names = input_names(view.name, view.spec, view.file, view.kept)
        names_ranked = ranked_inputs(attribution.inputs[view.name], names, TOP)
        if names_ranked:
            strongest[view.name] = names_ranked
    return strongest


def _risk_rank(
    prediction: PatientPrediction, cohort: list[PatientPrediction]
) -> tuple[float | None, int]:
    """Return the share of the other patients at lower risk, and their number."""
    others = [
        p.risk for p in cohort if p.risk is not None and p.patient_id != prediction.patient_id
    ]
    if prediction.risk is None or len(others) < FEWEST_OTHERS:
        return None, len(others)
    return sum(risk < prediction.risk for risk in others) / len(others), len(others)


def training_privacy(study: Study, policy: SitePolicy) -> list[str]:
    """Return what stands in a patient's report about the privacy of training.

    The promise is the study's; what was spent is read from this hospital's ledger.
    """
    plan = study.privacy
    if not plan.is_private:
        return ["Trained without differential privacy (mode none)."]
    return [
        f"Trained with patient-level differential privacy, mode {plan.mode}: epsilon at most "
        f"{plan.epsilon:g} at delta {plan.delta:g} over all rounds.",
        _spent(study, policy),
    ]


def _spent(study: Study, policy: SitePolicy) -> str:
    if not policy.ledger.is_file():
        return "This hospital has no ledger: none of its patients took part in any training."
    try:
        view = ledger_view(policy)
    except LedgerError as error:
        return f"What this hospital spent is not known: its ledger cannot be read ({error.code})."
    digest = study.digest()
    accounts = [a for a in view.accounts if a.study_digest == digest and a.partition == "train"]
    if not accounts:
        return "This hospital's ledger holds no training of this study."
    return (
        f"This hospital's ledger: epsilon {accounts[0].epsilon:.3g} at delta {view.delta:g} spent "
        f"in {accounts[0].releases} releases."
    )


RECORD = "prediction.json"
"""Written last: a folder without it holds no whole explanation. Its `files` names the others."""


@contextmanager
def patient_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace the last explanation in `target` on success.

    After an error `target` is as it was. Only files that the last explanation wrote are ever
    removed; whatever else lies in `target` stays.
    """
    waiting = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    waiting.mkdir(parents=True)
    try:
        yield waiting
        target.mkdir(exist_ok=True)
        before = _written_before(target)
        (target / RECORD).unlink(missing_ok=True)
        fresh = sorted(waiting.iterdir(), key=lambda file: file.name == RECORD)
        for old in before - {file.name for file in fresh}:
            (target / old).unlink(missing_ok=True)
        for file in fresh:
            file.replace(target / file.name)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _written_before(target: Path) -> set[str]:
    try:
        files = json.loads((target / RECORD).read_text(encoding="utf-8"))["files"]
        return {str(name) for name in files if Path(str(name)).name == str(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def input_names(name: str, spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    """Return the names of the tokens that the model read, and of their columns.

    The extractor names them if it can; else they are `names` of the study.

    Args:
        name: The feature set.
        spec: Its specification.
        file: The patient's feature file.
        kept: (T,) rows of the file that the model read.

    Raises:
        ConfigError: The extractor is unknown.
    """
    named_by = extractor_class(name, spec) if spec.extractor is not None else Extractor
    return named_by.input_names(spec, file, kept)


def ranked_inputs(
    values: npt.NDArray[np.float32], names: InputNames, top: int
) -> list[tuple[str, float]]:
    """Return the named inputs with the largest absolute attribution, largest first.

    Columns are named where they have names (`t1c: original_glcm_Contrast`), whole tokens
    otherwise; nothing is returned where neither has a name.

    Args:
        values: (T, D) attributions.
        names: Names of tokens and columns.
        top: How many, at most; inputs that moved nothing are left out.
    """
    if names.columns is not None:
        tokens = names.tokens or [""]
        pairs = [
            (f"{token}: {column}" if token else column, float(value))
            for token, row in zip(tokens, values, strict=True)
            for column, value in zip(names.columns, row, strict=True)
        ]
    elif names.tokens is not None:
        sums = values.sum(axis=1, dtype=np.float64)
        pairs = [(name, float(value)) for name, value in zip(names.tokens, sums, strict=True)]
    else:
        return []
    return sorted((p for p in pairs if p[1] != 0), key=lambda pair: -abs(pair[1]))[:top]
