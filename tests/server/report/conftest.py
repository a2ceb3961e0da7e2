"""One small finished run over hospitals in memory, with a report written of it."""

import json

import numpy as np
import pandas as pd
import pytest

from common.commands.cli_output import Output
from common.metrics.summaries.paired import Comparison
from common.metrics.tables.estimate import Estimate
from common.study.study import Study
from server.report.build import build_report
from server.report.content import Baseline, make_content
from simulations.cohorts.cohort import Cohort
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import memory_agents


def make_study():
    return Study.model_validate(
        {
            "study_id": "report-test",
            "title": "A <b>title</b> & more | less",
            "synthetic": True,
            "endpoints": {"response": {"positive": "yes"}, "survival": {}},
            "features": {
                "table": {"modality": "clinical", "dim": 3},
                "scan": {"modality": "radiology", "dim": 2},
            },
            "model": {"name": "linear"},
            "training": {"rounds": 15, "nominal_patients": 180, "test_fraction": 0.4},
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "subgroups": {
                "sex": {"column": "clinical_female", "levels": {"female": [1], "male": [0]}},
                "age": {"column": "clinical_age", "bands": [40, 65]},
            },
            "sites": [{"site_id": s} for s in "abc"],
        }
    )


def make_cohort(study, n=240):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, 3)).astype(np.float32)
    death = generator.exponential(40 * np.exp(-x[:, 0]))
    censor = generator.uniform(10, 90, n)
    hospital = generator.choice(["a", "b", "c"], n)
    has_scan = (hospital != "c") & (generator.uniform(size=n) < 0.6)
    return Cohort(
        name="test",
        patient_ids=[f"p{i:04d}" for i in range(n)],
        hospital=hospital,
        specs=dict(study.features),
        features={
            "table": [row[None] for row in x],
            "scan": [row[None, :2] if has else None for row, has in zip(x, has_scan, strict=True)],
        },
        response=(generator.uniform(size=n) < 1 / (1 + np.exp(-2 * x[:, 1]))).astype(float),
        time_months=np.minimum(death, censor),
        event=(death <= censor).astype(float),
        clinical=pd.DataFrame(
            {"female": generator.integers(0, 2, n), "age": generator.uniform(38, 80, n)}
        ),
    )


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    study = make_study()
    for site in "abc":
        private = folder / "sites" / site / "private"
        private.mkdir(parents=True)
        (private / "split.key").write_text(bytes(range(32)).hex())
    agents = memory_agents(study, make_cohort(study).by_hospital(), folder / "sites")
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True))


@pytest.fixture(scope="session")
def pooled():
    difference = Estimate(-0.0123, ci_low=-0.05, ci_high=0.02)
    return Baseline(
        "pooled",
        "Pooled",
        "one place",
        {"c_index": Estimate(0.7)},
        differences={"c_index": Comparison(difference, 0.2)},
    )


@pytest.fixture(scope="session")
def folder(run, pooled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    build_report(make_content(run, [pooled]), folder)
    return folder


@pytest.fixture(scope="session")
def written(folder):
    twin = json.loads((folder / "report.json").read_text())
    return (folder / "report.html").read_text(), twin
