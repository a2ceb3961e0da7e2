"""Write a whole synthetic consortium to disk, or recognise the one that is already there."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from common.commands.cli_output import Output
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.study import Study
from simulations.synthetic.cohort import SiteCohort, draw_cohort
from simulations.synthetic.expression import gmt_text, transcriptome
from simulations.synthetic.oracle import TRUTH_FILE, truth_table
from simulations.synthetic.patient_files import PatientJob, write_patient_images
from simulations.synthetic.site_files import demo_policy, write_policy, write_site_tables
from simulations.synthetic.spec import ConsortiumSpec

FORMAT = 1
"""Raised when the bytes written from the same specification change."""

_STAMP = "consortium.json"


class SyntheticConsortium:
    """A synthetic consortium on disk.

    `<folder>/sites/<site_id>/` is what a hospital would own; `<folder>/public/` what anybody may
    read; `<folder>/truth/` what only a simulation knows.

    Attributes:
        folder: The folder.
        spec: What was drawn.
        gene_sets: Public gene sets, GMT.
        gene_reference: Public mean and standard deviation of each gene, CSV.
        truth: Latent factors and true risks, Parquet.
        study: The study, once `adopt_study` has written it.
        sites: Folder of each hospital.
    """

    def __init__(self, folder: Path, spec: ConsortiumSpec) -> None:
        self.folder, self.spec = folder, spec
        self.gene_sets = folder / "public" / "gene_sets.gmt"
        self.gene_reference = folder / "public" / "gene_reference.csv"
        self.truth = folder / TRUTH_FILE
        self.study = folder / "study.yaml"
        self.sites = {s.site_id: folder / "sites" / s.site_id for s in spec.sites}


def write_consortium(
    folder: Path,
    spec: ConsortiumSpec,
    *,
    output: Output | None = None,
    workers: int | None = None,
) -> SyntheticConsortium:
    """Write the raw files of all hospitals; the bytes depend on `spec` alone.

    A folder that already holds this consortium is taken as it is. A half-written one is
    written again from the start of the images, to the same bytes.

    Args:
        folder: Where to write; created.
        spec: The consortium.
        output: Where progress is shown.
        workers: Processes; the number of processors by default.

    Raises:
        ConfigError: The folder holds something else, or a library is missing.
    """
    consortium = SyntheticConsortium(folder, spec)
    stamp = {"format": FORMAT, "spec_digest": spec.digest()}
    if _is_complete(folder, stamp):
        return consortium
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _STAMP, json.dumps(stamp | {"complete": False}))
    cohorts = [draw_cohort(spec, site) for site in spec.sites]
    _write_public(consortium)
    for cohort in cohorts:
        home = consortium.sites[cohort.site.site_id]
        for name in ("slides", "volumes"):
            (home / name).mkdir(parents=True, exist_ok=True)
        write_site_tables(home, spec, cohort)
    _write_images(folder, spec, cohorts, output or Output(json_mode=True), workers)
    consortium.truth.parent.mkdir(parents=True, exist_ok=True)
    truth_table(cohorts, spec.signal).to_parquet(consortium.truth, index=False)
    write_text(folder / _STAMP, json.dumps(stamp | {"complete": True}))
    return consortium


def adopt_study(consortium: SyntheticConsortium, study: Study) -> Path:
    """Write study.yaml, and site.yaml of every hospital with its approval; return the study.

    Feature stores, ledgers and keys of the hospitals are left alone.
    """
    plain = study.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=100)
    write_text(consortium.study, "# Synthetic study: it proves code, not medicine.\n" + text)
    for site_id, home in consortium.sites.items():
        write_policy(home, demo_policy(site_id, study))
    return consortium.study


def _is_complete(folder: Path, stamp: dict[str, object]) -> bool:
    """Return whether the consortium is there; remove what an interrupted run left behind."""
    path = folder / _STAMP
    if not folder.exists() or not any(folder.iterdir()):
        return False
    marker: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if {key: marker.get(key) for key in stamp} != stamp:
        raise ConfigError(
            "the folder holds something else",
            where=str(folder),
            why="a synthetic consortium of another seed, size or version, or other files",
            cure="choose an empty folder, or remove this one",
        )
    if marker["complete"]:
        return True
    for name in ("sites", "truth", "public"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return False


def _write_public(consortium: SyntheticConsortium) -> None:
    biology = transcriptome()
    write_text(consortium.gene_sets, gmt_text())
    rows = zip(biology.genes, biology.mean.tolist(), biology.sd.tolist(), strict=True)
    lines = ["gene,mean,sd", *(f"{gene},{mean:.6f},{sd:.6f}" for gene, mean, sd in rows)]
    write_text(consortium.gene_reference, "\n".join(lines) + "\n")


def _write_images(
    folder: Path,
    spec: ConsortiumSpec,
    cohorts: list[SiteCohort],
    output: Output,
    workers: int | None,
) -> None:
    jobs = [
        PatientJob(folder, spec, cohort, index)
        for cohort in cohorts
        for index in range(len(cohort.patient_ids))
    ]
    with (
        output.progress(len(jobs), "writing synthetic patients") as counter,
        _mapper(workers or os.cpu_count() or 1) as run,
    ):
        for patient in run(jobs):
            counter.advance(note=patient)


@contextmanager
def _mapper(workers: int) -> Iterator[Any]:
    """Yield what applies `write_patient_images` to jobs, here or in worker processes."""
    if workers <= 1:
        yield lambda jobs: map(write_patient_images, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield lambda jobs: pool.map(write_patient_images, jobs, chunksize=2)
