"""Write the tables and policy of one synthetic hospital: manifest.csv, rna.csv, site.yaml."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from common.cohort.outcomes import MONTHS_PER_UNIT
from common.privacy.plan import Mode
from common.storage.atomic_file import write_text
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from simulations.synthetic.clinical_record import COLUMNS, draw_record, empty_record
from simulations.synthetic.cohort import SiteCohort
from simulations.synthetic.expression import draw_batch, draw_expression, transcriptome
from simulations.synthetic.patient_files import image_paths
from simulations.synthetic.phantom import SEQUENCES
from simulations.synthetic.site_shift import draw_shift
from simulations.synthetic.spec import ConsortiumSpec
from simulations.synthetic.streams import stream

RNA_FILE = "rna.csv"


def clinical_records(
    spec: ConsortiumSpec, cohort: SiteCohort
) -> list[dict[str, str | float | None]]:
    """Return the clinical columns of every patient; all empty where the modality is absent."""
    latent = cohort.factor("clinical")
    records = []
    for index, patient in enumerate(cohort.patient_ids):
        generator = stream(spec.seed, patient, "clinical")
        record = draw_record(float(latent[index]), spec.missing_cell, generator)
        records.append(record if cohort.has("clinical")[index] else empty_record())
    return records


def rna_table(spec: ConsortiumSpec, cohort: SiteCohort) -> pd.DataFrame:
    """Return patients x genes, log2(TPM + 0.001), for those who have RNA; index patient_id."""
    site_id = cohort.site.site_id
    scale = draw_shift(spec.seed, site_id, spec.site_shift).batch_scale
    batch = draw_batch(spec.seed, site_id, scale)
    latent = cohort.factor("genomics")
    rows = {
        cohort.patient_ids[index]: draw_expression(
            float(latent[index]), batch, stream(spec.seed, cohort.patient_ids[index], "rna")
        )
        for index in np.flatnonzero(cohort.has("genomics")).tolist()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=transcriptome().genes)
    return table.rename_axis("patient_id")


def manifest_table(spec: ConsortiumSpec, cohort: SiteCohort) -> pd.DataFrame:
    """Return the manifest: one row per patient, empty cells where something is missing."""
    rows = []
    records = clinical_records(spec, cohort)
    for index, patient in enumerate(cohort.patient_ids):
        paths = image_paths(cohort, index)
        row: dict[str, object] = {"patient_id": patient, "slides": ";".join(paths.slides)}
        if "radiology" not in cohort.site.lacks:
            row |= {f"volume_{name}": paths.volumes.get(name) for name in SEQUENCES}
            row |= {f"mask_{name}": paths.masks.get(name) for name in SEQUENCES}
        if "genomics" not in cohort.site.lacks:
            row["rna"] = RNA_FILE if cohort.has("genomics")[index] else None
        row |= {f"clinical_{name}": _cell(records[index][name]) for name in COLUMNS}
        rows.append(row | _outcome(cohort, index))
    return pd.DataFrame(rows)


def _cell(value: str | float | None) -> str | float | None:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _outcome(cohort: SiteCohort, index: int) -> dict[str, object]:
    """Return the outcome columns in the hospital's own unit of time."""
    unit, months = cohort.site.time_unit, float(cohort.time_months[index])
    is_known = not np.isnan(months)
    response = cohort.response[index]
    columns: dict[str, object] = {"response": None if np.isnan(response) else int(response)}
    if unit == "months":
        columns["time_months"] = months if is_known else None
    else:
        value = months / MONTHS_PER_UNIT[unit] if is_known else None
        columns["time"] = None if value is None else f"{value:.{0 if unit == 'days' else 3}f}"
        columns["time_unit"] = unit if is_known else None
    columns["event"] = int(cohort.event[index]) if is_known else None
    return columns


def write_site_tables(folder: Path, spec: ConsortiumSpec, cohort: SiteCohort) -> None:
    """Write manifest.csv and, where the hospital sequences, rna.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    if "genomics" not in cohort.site.lacks:
        write_text(folder / RNA_FILE, rna_table(spec, cohort).to_csv(float_format="%.4f"))
    write_text(folder / "manifest.csv", manifest_table(spec, cohort).to_csv(index=False))


DEMO_LIFETIME_EPSILON = 40.0
"""Enough to try every mode over one folder; a real hospital allows far less."""


def demo_policy(site_id: str, study: Study) -> SitePolicy:
    """Return the policy of an invented hospital that agrees to `study` at its own epsilon.

    It allows the release modes of a real hospital, and the study's.
    """
    private: list[Mode] = ["distributed", "local"]
    open_mode: list[Mode] = [] if study.privacy.is_private else ["none"]
    evaluation = study.privacy.evaluation
    epsilon = study.privacy.epsilon
    approval = Approval(
        study_digest=study.digest(),
        epsilon_ceiling=epsilon,
        evaluation_epsilon_ceiling=DEMO_LIFETIME_EPSILON,
    )
    return SitePolicy(
        site_id=site_id,
        approvals=[approval],
        lifetime_epsilon=max(DEMO_LIFETIME_EPSILON, epsilon),
        lifetime_evaluation_epsilon=DEMO_LIFETIME_EPSILON,
        delta=study.privacy.delta,
        allowed_modes=[*private, *open_mode],
        allow_internal_evaluation=evaluation.release == "internal",
    )


def write_policy(folder: Path, policy: SitePolicy) -> None:
    """Write site.yaml."""
    text = yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False)
    head = "# A synthetic hospital: no patient exists.\n"
    write_text(folder / "site.yaml", head + text)
