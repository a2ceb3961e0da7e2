"""Measure two ways through the code: checkpoint to report, and patient to gradient sum.

Both are followed through real runs of a small consortium (`simulations.benchmarks.structure.
way` says what a way is). The checkpoint's begins in the round loop and ends where the report takes
the result in; what is sent to the hospitals leaves it at the link. The patient's begins where a
manifest is read and ends with the sum of gradients of one hospital.
"""

import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.agent.site_agent import SiteAgent
from client.data.bags import BagStore
from client.data.dataset import PatientDataset
from common.cohort.batch import PatientBatch
from common.cohort.features_h5 import FeatureFile, feature_path, write_features
from common.cohort.manifest import Manifest, PatientRow
from common.commands.cli_output import Output
from common.privacy.clipping import ClippedSum, GradientSum
from common.privacy.plan import Mode
from common.study.site_policy import SitePolicy
from common.study.study import Study
from server.report.content import make_content
from server.run.rounds import run_study
from server.session.checkpoint import Checkpoint
from simulations.benchmarks.parts.check import Check, Size
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.structure.way import Entry, Trace, Way, way_of
from simulations.engines.consortium_run import local_link, run_in_process
from simulations.engines.many_sites import many_agents, many_cohorts, many_sites_study
from simulations.engines.memory_sites import simulated_policy, with_identities

DURATION = "half a minute"
MOST_MODULES = 12
QUIET = Output(json_mode=True)
PATIENT = (Manifest, PatientRow, FeatureFile, BagStore, PatientDataset, PatientBatch, GradientSum)


@dataclass(frozen=True)
class WaysSize(Size):
    """Modes of training."""

    modes: tuple[Mode, ...] = ("distributed", "local", "none")


FULL, MINIATURE = WaysSize(seeds=(1,)), WaysSize(seeds=(1,), partial=True, modes=("none",))


def checks(data: Path, size: WaysSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    for mode in size.modes:
        ways = {"a checkpoint": checkpoint_way(mode), "a patient": patient_way(mode)}
        for name, way in ways.items():
            what = f"on the way of {name}, mode {mode}"
            names = " -> ".join(way.modules)
            yield Check(f"modules {what}", len(way.modules), MOST_MODULES, "<=", note=names)
            turns = "; ".join(f"{caller} to {callee}" for caller, callee in way.turns)
            yield Check(f"turns back {what}", len(way.turns), 0, "==", note=turns)


def checkpoint_way(mode: Mode = "distributed") -> Way:
    """Return the way of a checkpoint, and of the parameters it holds, to the report."""
    trace = Trace()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = _study(mode, folder)
        link = local_link(study, many_agents(study, folder / "sites"))

        class Outside:
            """The link; what happens beyond it is not followed."""

            def site_ids(self) -> tuple[str, ...]:
                return link.site_ids()

            def exchange(self, *arguments: Any, **options: Any) -> Any:
                profile = sys.getprofile()
                sys.setprofile(None)
                try:
                    return link.exchange(*arguments, **options)
                finally:
                    sys.setprofile(profile)

        with trace:
            result = run_study(study, Outside(), folder / "run", output=QUIET)
            make_content(result)
    models = {_content(result.arrays)}
    for entry in trace.entries:
        held = (value.parameters for value in entry.values if isinstance(value, Checkpoint))
        models |= {_content(parameters) for parameters in held}

    def is_model(value: object) -> bool:
        if isinstance(value, Checkpoint):
            return True
        return isinstance(value, dict) and _content(value, result.arrays) in models

    return way_of(trace.entries, is_model)


def patient_way(mode: Mode = "distributed") -> Way:
    """Return the way of one hospital's patients from its manifest to the sum of gradients."""
    trace = Trace()

    class Watched:
        """A hospital whose calls are followed."""

        def __init__(self, agent: SiteAgent) -> None:
            self._agent = agent

        def __getattr__(self, method: str) -> Any:
            def call(request: Any) -> Any:
                with trace:
                    return getattr(self._agent, method)(request)

            return call

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = _study(mode, folder)
        agents: dict[str, Any] = {}
        for site_id, cohort in many_cohorts(study).items():
            policy = simulated_policy(study, site_id, folder / "sites" / site_id)
            _write_hospital(policy, cohort.dataset(study))
            agents[site_id] = SiteAgent(policy)
        first = min(agents)
        agents[first] = Watched(agents[first])
        result = run_in_process(study, agents, folder / "run", output=QUIET)
    size = sum(array.size for array in result.arrays.values())

    def is_patient(value: object) -> bool:
        gradients = isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == size
        return gradients or isinstance(value, PATIENT)

    return way_of(_from_manifest_to_sum(trace.entries), is_patient)


def _study(mode: Mode, folder: Path) -> Study:
    release = "dp" if mode == "distributed" else "internal"
    privacy = {"mode": mode, "epsilon": 8.0, "evaluation": {"release": release}}
    keys = many_sites_study(3, rounds=2).model_dump() | {"privacy": privacy}
    return with_identities(Study.from_mapping(keys, where="ways"), folder / "sites")


def _content(
    arrays: Mapping[str, Any], like: Mapping[str, np.ndarray] | None = None
) -> tuple[tuple[str, bytes], ...]:
    """Return by what models differ; of the arrays named in `like` alone, if given.

    A name may carry a prefix that says what a file or message holds beside it.
    """
    plain = {str(n).rpartition("/")[2]: a for n, a in arrays.items() if isinstance(a, np.ndarray)}
    return tuple((n, plain[n].tobytes()) for n in sorted(like or plain) if n in plain)


def _write_hospital(policy: SitePolicy, patients: PatientDataset) -> None:
    """Write manifest and features of a hospital that lies in memory."""
    policy.manifest.parent.mkdir(parents=True, exist_ok=True)
    with policy.manifest.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["patient_id", "response", "time_months", "event"])
        for index, patient in enumerate(patients.patient_ids):
            response = patients.response[index]
            known = "" if np.isnan(response) else int(response)
            event = int(patients.event[index])
            table.writerow([patient, known, patients.time_months[index], event])
            batch = patients.batch([index])
            for name in patients.study.features:
                if bool(batch.present[name][0]):
                    tokens = batch.tokens[name][0].numpy()
                    path = feature_path(policy.feature_store, name, patient)
                    write_features(path, FeatureFile(tokens, None, {}))


def _from_manifest_to_sum(entries: list[Entry]) -> list[Entry]:
    """Return the calls from the first manifest to the first sum, and those they were made from."""
    start = next(i for i, entry in enumerate(entries) if entry.name == "read_manifest")
    end = ClippedSum.result.__code__
    stop = next(i for i, entry in enumerate(entries) if entry.code is end)
    around: list[Entry] = []
    caller = entries[start].caller
    while caller is not None:
        around.insert(0, caller)
        caller = caller.caller
    return around + entries[start : stop + 1]


if __name__ == "__main__":
    main(__file__)
