"""Run the whole system once on this machine: from raw files at synthetic hospitals to a report.

Nothing is special-cased: the hospitals' own commands extract, the real agents train, the real
server aggregates. Only the patients are synthetic, and every output says so.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.agent.site_agent import SiteAgent
from client.data.cohort_check import check_cohort
from client.explain.explain import explain_patients
from client.extract.run.runner import run_extraction
from client.predict.predict_command import predict_patients
from client.site.site_folder import load_policy
from common.cohort.manifest import read_manifest
from common.commands.cli_output import Output
from common.errors import ExtractionError
from common.privacy.plan import Mode
from common.protocol.protocol import AgentApi
from common.study.site_policy import SitePolicy
from common.study.study import Study
from server.report.build import build_report
from server.report.content import Baseline, make_content
from server.run.rounds import MODEL_FILE, RunResult
from simulations.arms.baselines import oracle_baseline, train_baselines
from simulations.cohorts.stored_cohort import read_stored_cohort
from simulations.engines.consortium_run import Engine, run_in_process
from simulations.engines.memory_sites import with_identities
from simulations.synthetic.consortium import SyntheticConsortium, adopt_study, write_consortium
from simulations.synthetic.oracle import oracle_metrics
from simulations.synthetic.spec import demo_spec
from simulations.synthetic.study_template import demo_study

EXPLAINED_PER_SITE = 1


@dataclass(frozen=True)
class DemoResult:
    """Where the demo left things, and how long each step took in seconds."""

    page: Path
    twin: Path
    seconds: dict[str, float]


def run_demo(
    folder: Path,
    *,
    mode: Mode = "local",
    epsilon: float = 8.0,
    patients: int = 45,
    rounds: int | None = None,
    workers: int = 2,
    engine: Engine = "local",
    explain: bool = True,
    output: Output,
) -> DemoResult:
    """Run, or continue, the demo in `folder`.

    Args:
        folder: For everything.
        mode: Privacy mode of training.
        epsilon: Budget of training, where the mode is private.
        patients: Patients per hospital.
        rounds: Rounds; the study template's own where None.
        workers: Processes for writing and extraction.
        engine: In-process transport, or Flower's Ray simulation.
        explain: Whether to explain a patient of every hospital at the end.
        output: Where progress is shown.

    Raises:
        ConfigError: The folder holds a demo of another specification.
        ExtractionError: A hospital's raw files could not be extracted.
        RunError: The federated run failed.
    """
    clock = _Clock(output)
    clock.start("synthetic hospitals", "1/6 Writing SYNTHETIC hospitals: slides, MRI, RNA, tables")
    spec = demo_spec(patients=patients)
    consortium = write_consortium(folder / "consortium", spec, output=output, workers=workers)
    study = demo_study(spec, mode, epsilon=epsilon, rounds=rounds)
    if mode == "distributed":
        study = with_identities(study, consortium.folder / "sites")
    adopt_study(consortium, study)
    policies = {site: load_policy(home) for site, home in consortium.sites.items()}
    clock.start("extraction", "2/6 Each hospital extracts its features")
    _extract_all(study, policies, workers, output)
    clock.start("training", f"3/6 Federated training, privacy mode {mode}")
    agents: dict[str, AgentApi] = {site: SiteAgent(policies[site]) for site in sorted(policies)}
    run_dir = folder / f"run-{study.digest()[:12]}"
    result = run_in_process(study, agents, run_dir, output=output, engine=engine)
    clock.start("baselines", "4/6 Baselines, possible in a simulation only")
    baselines = _baselines(consortium, study, policies, result, output)
    clock.start("report", "5/6 Report")
    page, twin = build_report(make_content(result, baselines), folder)
    clock.start("explanations", "6/6 Each hospital explains a patient of its own")
    if explain:
        _explain(study, policies, result, folder, output)
    return DemoResult(page, twin, clock.stop())


class _Clock:
    """Seconds each step took."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._seconds: dict[str, float] = {}
        self._open: tuple[str, float] | None = None

    def start(self, step: str, text: str) -> None:
        self.stop()
        self._output.say(text)
        self._open = (step, time.monotonic())

    def stop(self) -> dict[str, float]:
        if self._open is not None:
            step, began = self._open
            self._seconds[step] = round(time.monotonic() - began, 2)
            self._open = None
        return self._seconds


def _extract_all(
    study: Study, policies: Mapping[str, SitePolicy], workers: int, output: Output
) -> None:
    failures = []
    for site_id, policy in policies.items():
        output.say(f"  {site_id}")
        summary = run_extraction(
            read_manifest(policy.manifest),
            study.features,
            policy.feature_store,
            workers=workers,
            output=output,
        )
        failures += [f"{site_id}: {line}" for line in summary.lines() if summary.failed]
        for line in check_cohort(policy, study).lines():
            output.say(f"    {line}")
    if failures:
        raise ExtractionError(
            f"{len(failures)} items could not be extracted",
            where="; ".join(failures[:3]),
            why="synthetic files are expected to be readable",
            cure="run the same command again; what is done is kept",
        )


def _baselines(
    consortium: SyntheticConsortium,
    study: Study,
    policies: Mapping[str, SitePolicy],
    result: RunResult,
    output: Output,
) -> list[Baseline]:
    train, held_out = read_stored_cohort(study, policies)
    baselines = train_baselines(
        study, result.arrays, train, held_out, result.run_dir / "baselines", output=output
    )
    patients = [patient.split("/", 1)[1] for patient in held_out.patient_ids]
    oracle = oracle_metrics(consortium.folder, patients)
    return [*baselines, oracle_baseline(oracle, "too few outcomes among the held-out patients")]


def _explain(
    study: Study,
    policies: Mapping[str, SitePolicy],
    result: RunResult,
    folder: Path,
    output: Output,
) -> None:
    for site_id, policy in policies.items():
        predictions = predict_patients(policy, study, result.run_dir / MODEL_FILE)
        richest = sorted(predictions.predictions, key=lambda p: (len(p.missing), p.patient_id))
        selection = predict_patients(
            policy,
            study,
            result.run_dir / MODEL_FILE,
            [p.patient_id for p in richest[:EXPLAINED_PER_SITE]],
        )
        explain_patients(selection, folder / "explained" / site_id, output=output)
