"""Run one study over a cohort in memory, from the first round to the report with its baselines."""

from pathlib import Path

import numpy as np

from client.data.split import is_held_out, load_or_create_split_key
from common.commands.cli_output import Output
from common.errors import ConfigError
from common.study.study import Study
from server.report.build import build_report
from server.report.content import make_content
from server.report.report_frames import Report, read_report
from simulations.arms.baselines import train_baselines
from simulations.cohorts.cohort import Cohort
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import memory_agents, simulated_policy, with_identities


def simulate_study(
    study: Study,
    cohort: Cohort,
    folder: Path | str,
    *,
    baselines: bool = True,
    output: Output | None = None,
) -> Report:
    """Run a study as a consortium would and return its report; run again to continue.

    Below `folder` lie `report.html`, `report.json`, `run/model.safetensors` and, as at a real
    hospital, `sites/<site_id>/private/ledger.jsonl`.

    Args:
        study: The study; in mode distributed identities are made for its hospitals.
        cohort: Patients of the hospitals on the study's roster.
        folder: Where everything stays.
        baselines: Whether to train pooled, alone and clinical baselines too.
        output: Where progress is shown; on standard error by default.

    Raises:
        ConfigError: Roster and cohort name different hospitals, or the folder holds another run.
        RunError: The run failed.
    """
    folder, output = Path(folder), output or Output()
    roster = {site.site_id for site in study.sites}
    if roster != set(cohort.hospitals):
        raise ConfigError(
            "the study and the cohort name different hospitals",
            where=", ".join(sorted(roster ^ set(cohort.hospitals))),
            cure="draft the study from this cohort, or correct `sites`",
        )
    if study.privacy.mode == "distributed":
        study = with_identities(study, folder / "sites")
    agents = memory_agents(study, cohort.by_hospital(), folder / "sites")
    result = run_in_process(study, agents, folder / "run", output=output)
    extra = []
    if baselines:
        train, held_out = _split(study, cohort, folder / "sites")
        work = folder / "baselines"
        extra = train_baselines(study, result.arrays, train, held_out, work, output=output)
    _, twin = build_report(make_content(result, extra, cohort.notes), folder)
    return read_report(twin)


def _split(study: Study, cohort: Cohort, sites: Path) -> tuple[Cohort, Cohort]:
    """Return (training, held-out) patients as every hospital's own key splits them."""
    policies = {site: simulated_policy(study, site, sites / site) for site in cohort.hospitals}
    keys = {s: load_or_create_split_key(policy.split_key_file) for s, policy in policies.items()}
    share = study.training.test_fraction
    in_test = np.array(
        [
            is_held_out(patient, keys[str(site)], share)
            for patient, site in zip(cohort.patient_ids, cohort.hospital, strict=True)
        ]
    )
    return cohort.take(np.flatnonzero(~in_test)), cohort.take(np.flatnonzero(in_test))
