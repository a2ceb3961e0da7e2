"""Select the model this hospital uses: global with its own parameters, or its personal one.

In a study whose parameters partly stay local the published model file is incomplete on purpose:
what stayed here was never sent.
"""

from __future__ import annotations

import json
from pathlib import Path

from client.agent.local_rounds import STAY, own_model
from client.agent.open_run import load_run, stored_features
from common.errors import ConfigError, DataError
from common.models.base.base import FusedModel
from common.models.base.parameters import load_arrays, to_arrays
from common.study.site_policy import SitePolicy
from common.study.study import Study


def load_own_parameters(model: FusedModel, policy: SitePolicy, study: Study, path: Path) -> None:
    """Turn the global model into the one of this hospital, where the study says they differ.

    Args:
        model: Holds the global parameters; changed in place.
        policy: The hospital's rules and paths.
        study: The study the model was trained in.
        path: The model file, or its folder; the record beside it names the run.

    Raises:
        ConfigError: The record is missing, or does not name the run.
        ProtocolError: This hospital never took part in that run, or withdrew its approval.
        DataError: It took part, but kept nothing.
    """
    plan = study.training
    if plan.personal is None and not plan.stay_local:
        return
    run = load_run(policy, _run_id(path), stored_features(policy))
    if plan.stay_local and not run.memory.latest(STAY):
        raise DataError(
            "this hospital has no parameters of its own from that run",
            where=str(run.memory.folder),
            why=f"the study keeps {', '.join(plan.stay_local)} at each site, and none were trained "
            "here; the published file alone would predict with untrained ones",
            cure="restore the state folder from backup, or take part in a run of the study",
        )
    own = own_model(run, to_arrays(model), personal=plan.personal is not None)
    load_arrays(model, own)


def _run_id(path: Path) -> str:
    file = path / "model.json" if path.is_dir() else path.with_suffix(".json")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            "the record beside the model does not name its run",
            where=str(file),
            why="every site has parameters of its own in this study, stored by run",
            cure="copy model.safetensors and model.json of the finished run again",
        ) from None
