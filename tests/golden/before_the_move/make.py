"""Write the files of this folder with the code from before modules moved into rooms.

Run from a checkout of commit e7cce33, whose imports these are, with a new folder:

    PYTHONPATH=.:tests python make.py FOLDER

Everything is synthetic. Keys are throwaway keys of these files alone.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from joined_consortium import join, make_consortium, make_hospital

from client.extract.runner import run_extraction
from client.site_folder import load_policy, make_approval, record_consent
from common.cli_output import Output
from common.manifest import read_manifest
from common.models.registry import build_model
from common.models.weights_file import save_weights
from common.study import Study
from common.study_freeze import freeze
from server.session import RunSession
from simulations.consortium_run import run_in_process
from simulations.identities import with_identities
from simulations.tiny_consortium import tiny_agents, tiny_study

ROUNDS, KILLED_AFTER = 4, 2
QUIET = Output(json_mode=True)
MANIFEST = """\
patient_id,rna,clinical_age,clinical_sex,response,time_months,event
P1,rna.csv,61,female,1,10.5,1
"""
RNA = "patient_id,TP53,MYC,KRAS\nP1,1.0,2.5,-0.5\n"
FEATURES = {
    "table": {
        "modality": "clinical",
        "dim": 5,
        "extractor": {
            "kind": "clinical_table",
            "params": {
                "variables": [
                    {"kind": "numeric", "name": "age", "center": 60, "scale": 10},
                    {"kind": "categorical", "name": "sex", "categories": ["female", "male"]},
                ]
            },
        },
    },
    "pathways": {
        "modality": "genomics",
        "dim": 2,
        "max_tokens": 2,
        "pool": "row_mean",
        "extractor": {
            "kind": "pathways",
            "params": {
                "sets": [
                    {"name": "A", "genes": ["TP53", "MYC"]},
                    {"name": "B", "genes": ["KRAS"]},
                ],
                "input_scale": "log2_tpm",
            },
        },
    },
}


class Killed(BaseException):
    """Stands for kill -9: nothing on the way catches it."""


def half_a_run(folder: Path, mode: str) -> None:
    """A study over three hospitals in memory, killed after two of four rounds."""
    for letter in "abc":
        private = folder / "sites" / f"site-{letter}" / "private"
        private.mkdir(parents=True)
        (private / "split.key").write_text("cd" * 32)
    release = "internal" if mode == "none" else "dp"
    study = tiny_study(
        training={"rounds": ROUNDS},
        privacy={"mode": mode, "epsilon": 8.0, "evaluation": {"release": release}},
    )
    if mode == "distributed":
        study = with_identities(study, folder / "sites")
    own = RunSession.check_stop

    def check_stop(session: RunSession) -> None:
        if session.state.round == KILLED_AFTER:
            raise Killed
        own(session)

    RunSession.check_stop = check_stop
    try:
        agents = tiny_agents(study, folder / "sites")
        run_in_process(study, agents, folder / "run", output=QUIET)
    except Killed:
        pass
    finally:
        RunSession.check_stop = own


def consortium(folder: Path) -> None:
    """A consortium with one hospital: join request, roster, kit, consent, features."""
    lab = make_consortium(folder)
    policy = make_hospital(folder, "hospital-a")
    join(lab, policy, folder)
    members = lab.roster().members
    study = tiny_study(
        study_id="frozen",
        features=FEATURES,
        privacy={"mode": "distributed", "evaluation": {"release": "dp"}},
        sites=[{"site_id": m.site_id, "public_key": m.identity} for m in members]
        + [{"site_id": f"hospital-{letter}"} for letter in "bc"],
    )
    study = Study.model_validate(study.model_dump() | {"features": FEATURES})
    freeze(study, folder / "study.frozen.json")
    home = folder / "hospital-a"
    (home / "manifest.csv").write_text(MANIFEST)
    (home / "rna.csv").write_text(RNA)
    approval = make_approval(policy, study, announced=None, epsilon=4.0, fallback_epsilon=None)
    record_consent(policy, approval)
    policy = load_policy(home)
    manifest = read_manifest(policy.manifest)
    run_extraction(manifest, study.features, policy.feature_store, workers=0, output=QUIET)


def main() -> None:
    """Write everything below the folder that the command names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    for mode in ("none", "distributed"):
        half_a_run(folder / mode, mode)
    consortium(folder)
    model = build_model(tiny_study())
    digest = save_weights(model, folder / "trunk.safetensors")
    (folder / "trunk.json").write_text(json.dumps({"sha256": digest}))
    needless = ["none/sites", "hospital-a-kit", "hospital-a/connection/bin", "lab/runs"]
    needless += ["hospital-a/connection/supernode.env", "lab/superlink", "lab/requests"]
    needless += ["lab/server", "lab/ca/ca.key", "lab/ca/roster.key"]
    for name in needless:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for pattern in ("*lock", "node.key*"):
        for path in folder.rglob(pattern):
            path.unlink()


main()
