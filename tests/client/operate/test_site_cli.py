"""Every command of a hospital with wrong input: one clear message, its exit status, no trace."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import typer
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from small_site import site_study, write_model, write_small_site, write_study

from client.operate.cli import app
from client.site.consent import SignedConsent
from client.site.identity import create_identity
from client.site.site_folder import load_policy
from common.commands import cli
from common.trust.audit_log import read_audit

STUDY = site_study("linear")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    write_small_site(folder / "site", n_tiles=4)
    write_study(STUDY, folder / "study.yaml")
    write_model(STUDY, folder / "run")
    return folder


@pytest.fixture
def home(pristine: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with site/, study.yaml and run/, from which commands are called."""
    shutil.copytree(pristine, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line as a user does; return exit status, stdout and stderr."""

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tumorboard", "site", *line.split()])
        status = 0
        try:
            cli.main()
        except SystemExit as done:
            status = int(done.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return status, told.out, told.err

    return run


def files(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


SITE = "--site site --study study.yaml"
PREDICT = f"predict {SITE} --model run/model.safetensors --explain out"


def edit_policy(home: Path, **keys) -> None:
    policy = yaml.safe_load((home / "site/site.yaml").read_text())
    (home / "site/site.yaml").write_text(yaml.safe_dump(policy | keys))


def spoil_manifest(home: Path) -> None:
    (home / "site/manifest.csv").write_text(
        "patient_id,slides,response,time_months,event\n"
        "P1,slides/none.tif,0,12,1\n"
        "P1,,0,12,1\n"
        "P3,,2,12,1\n"
        "P4,,0,-3,1\n"
        "P5,,0,4,maybe\n"
    )


def put_nan(home: Path) -> None:
    with h5py.File(home / "site/features/table/P2.h5", "r+") as file:
        values = file["features"][()]
        values[0, 1] = float("nan")
        file["features"][...] = values


WRONG = {
    "no site": ("predict", lambda h: shutil.rmtree(h / "site"), 2, "TB100", "holds no hospital"),
    "no site.yaml": ("check", lambda h: (h / "site/site.yaml").unlink(), 2, "TB100", "site init"),
    "unknown key": ("check", lambda h: edit_policy(h, minimum=3), 2, "TB100", "minimum"),
    "wrong type": ("extract", lambda h: edit_policy(h, device="gpu"), 2, "TB100", "device"),
    "not yaml": (
        "approve",
        lambda h: (h / "site/site.yaml").write_text("site_id: [a\n"),
        2,
        "TB100",
        "not valid YAML",
    ),
    "binary site.yaml": (
        "check",
        lambda h: (h / "site/site.yaml").write_bytes(b"\xff\xfe\x00"),
        2,
        "TB100",
        "cannot be read",
    ),
    "no study": ("extract", lambda h: (h / "study.yaml").unlink(), 2, "TB100", "study.yaml"),
    "a policy as study": (
        "check",
        lambda h: shutil.copy(h / "site/site.yaml", h / "study.yaml"),
        2,
        "TB100",
        "endpoints",
    ),
    "study of others": (
        "approve",
        lambda h: edit_policy(h, site_id="hospital-z"),
        2,
        "TB100",
        "does not name 'hospital-z'",
    ),
    "too few patients": (
        "approve",
        lambda h: edit_policy(h, minimum_cohort=5),
        1,
        "TB320",
        "3 usable patients, at least 5 are needed",
    ),
    "another study": (
        "predict",
        lambda h: write_study(site_study("linear", version=2), h / "study.yaml"),
        2,
        "TB501",
        "another study",
    ),
    "no model": ("predict", lambda h: shutil.rmtree(h / "run"), 2, "TB100", "no model file"),
    "no manifest": ("check", lambda h: (h / "site/manifest.csv").unlink(), 2, "TB200", "manifest"),
    "five problems": ("check", spoil_manifest, 2, "TB200", "5 problem(s)"),
    "five problems, extract": ("extract", spoil_manifest, 2, "TB200", "5 problem(s)"),
    "five problems, predict": ("predict", spoil_manifest, 2, "TB200", "5 problem(s)"),
    "nothing extracted": (
        "predict",
        lambda h: shutil.rmtree(h / "site/features"),
        1,
        "TB320",
        "site extract",
    ),
    "corrupt file": (
        "predict",
        lambda h: (h / "site/features/tiles/P2.h5").write_bytes(b"\x89HDF\r\n rubbish"),
        1,
        "TB300",
        "P2.h5",
    ),
    "empty file": (
        "predict",
        lambda h: (h / "site/features/table/P4.h5").write_bytes(b""),
        1,
        "TB300",
        "P4.h5",
    ),
    "not finite": ("predict", put_nan, 1, "TB302", "P2.h5, first at token 0, column 1"),
    "a foreign file": (
        "predict",
        lambda h: shutil.copy(h / "site/features/table/P1.h5", h / "site/features/tiles/P1.h5"),
        1,
        "TB300",
        "tiles",
    ),
    "a file for a folder": (
        "predict",
        lambda h: (h / "out").write_text("x"),
        2,
        "TB100",
        "--explain",
    ),
    "a file for the store": (
        "extract",
        lambda h: (shutil.rmtree(h / "site/features"), (h / "site/features").write_text("x")),
        2,
        "TB100",
        "feature_store",
    ),
    "damaged consent": (
        "approve",
        lambda h: (
            (h / "site/private/consents").mkdir(parents=True),
            create_identity(h / "site/private/identity.key"),
            (h / "site/private/consents/a.json").write_text("{"),
        ),
        2,
        "TB100",
        "a.json",
    ),
}

COMMANDS = {
    "check": f"check {SITE}",
    "extract": f"extract {SITE} --workers 1",
    "approve": f"approve {SITE}",
    "predict": PREDICT,
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gives_one_message_and_leaves_nothing(home, call, case):
    command, spoil, status, code, said = WRONG[case]
    spoil(home)
    before = files(home)
    found, _out, err = call(COMMANDS[command])
    assert found == status, err
    assert err.count("[TB") == 1
    assert err.startswith(f"[{code}]")
    assert said in err
    assert files(home) == before


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (f"{PREDICT} --patient P9", 1, "no such patient: P9"),
        ("predict --site site", 2, "Missing option"),
        ("fingerprints --study none.yaml", 2, "does not exist"),
        ("init site --site-id hospital-a", 2, "already belongs"),
        ("init site/site.yaml --site-id hospital-a", 2, "cannot be written"),
        ("init new --site-id a/b", 2, "site_id"),
        (f"approve {SITE} --epsilon -1", 2, "epsilon_ceiling"),
        (f"approve {SITE} 123456789abc", 2, "not the study that was announced"),
        (f"approve {SITE} {STUDY.digest()[:8]}", 2, "not the study that was announced"),
        (f"extract {SITE} --workers 0", 2, "--workers"),
        ("nosuch", 2, "No such command"),
    ],
)
def test_wrong_arguments_are_refused(home, call, line, status, said):
    before = files(home)
    found, _out, err = call(line)
    assert (found, said in err) == (status, True), err
    assert files(home) == before


def test_a_hospital_from_nothing_to_a_prediction(home, call):
    status, out, _err = call("init new --site-id hospital-b")
    assert (status, set(files(home / "new"))) == (0, {"site.yaml", "manifest.csv"})
    assert "site check" in out
    status, _out, err = call("check --site new --study study.yaml")
    assert (status, "the manifest has no patient" in err) == (2, True)
    status, out, _err = call(f"check {SITE}")
    assert status == 0
    assert "has not approved the study" in out
    assert "pathways: input named, features not extracted for 1" in out
    assert "4 usable patients" not in out
    status, _out, err = call(f"approve {SITE} {STUDY.digest()[:16]}")
    assert (status, "site keygen" in err) == (2, True)  # a consent is signed
    assert call("keygen --site site")[0] == 0
    status, out, _err = call(f"approve {SITE} {STUDY.digest()[:16]}")
    assert (status, STUDY.digest() in out) == (0, True)
    status, out, _err = call(f"check {SITE} --json")
    points = json.loads(out)["open_points"]
    assert not any("approved" in point for point in points)
    status, out, err = call(f"{PREDICT} --patient P3 --patient P4")
    assert status == 0, err
    assert "SYNTHETIC" in out
    assert "genomics (in the manifest, but no features extracted)" in out
    assert (home / "out/P4/report.txt").is_file()


def test_json_output_is_one_object(home, call):
    _status, out, _err = call(f"predict {SITE} --model run --patient P4 --explain out --json")
    told = json.loads(out)
    assert [p["patient_id"] for p in told["predictions"]] == ["P4"]
    assert told["synthetic"] is True
    assert told["study_digest"] == STUDY.digest()
    assert told["predictions"][0]["missing"] == ["pathology", "genomics"]
    assert told["predictions"][0]["role_in_training"] == "unknown"
    assert all(Path(file).is_file() for file in told["explanations"]["P4"]["files"])


def test_check_counts_outcomes_of_the_studys_own_tasks(home, call):
    endpoints = {"response": {"positive": "responds"}}
    write_study(site_study("linear", endpoints=endpoints), home / "study.yaml")
    manifest = (home / "site/manifest.csv").read_text().replace("0,10,1", ",10,1")
    (home / "site/manifest.csv").write_text(manifest)
    _status, out, _err = call(f"check {SITE} --json")
    told = json.loads(out)
    assert told["outcomes"].keys() == {"response"}
    assert told["usable_ids"] == ["P3", "P4"]


def test_a_consent_is_private_and_binds_one_digest(home, call):
    call("keygen --site site")
    call(f"approve {SITE} --epsilon 3")
    consent = home / f"site/private/consents/{STUDY.digest()}.json"
    assert consent.stat().st_mode & 0o077 == 0
    assert json.loads(consent.read_text())["approval"]["epsilon_ceiling"] == 3
    (line,) = read_audit(home / "site/private/audit.jsonl")
    assert (line.event, line.facts["epsilon_ceiling"]) == ("approved", 3)
    assert line.facts["study_digest"] == STUDY.digest()


def test_a_consent_repeats_why_doubtful_weights_are_used(home, call):
    words = "The trunk is a fixed random projection; hospital-b measured that it suffices."
    call("keygen --site site")
    write_study(site_study("frozen_trunk"), home / "study.yaml")
    status, out, err = call(f"approve {SITE}")
    assert (status, out) == (3, "")
    assert err.startswith("[TB402]")
    assert "drawn at random and never trained: fusion.trunk" in err
    study = site_study("frozen_trunk", weights={"accept_origin": words})
    write_study(study, home / "study.yaml")
    status, out, err = call(f"approve {SITE}")
    assert status == 0, err
    assert words in out
    assert (home / f"site/private/consents/{study.digest()}.json").is_file()


@pytest.mark.parametrize("how", ["altered", "signed by another"])
def test_a_consent_of_somebody_else_is_refused(home, call, how):
    """A ceiling cannot be widened by whoever may write the file, but does not hold the identity."""
    call("keygen --site site")
    call(f"approve {SITE} --epsilon 3")
    consent = home / f"site/private/consents/{STUDY.digest()}.json"
    wider = load_policy(home / "site").approvals[0].model_copy(update={"epsilon_ceiling": 30.0})
    if how == "altered":
        told = json.loads(consent.read_text())
        consent.write_text(json.dumps(told | {"approval": wider.model_dump(mode="json")}))
    else:
        consent.write_text(SignedConsent.make(wider, Ed25519PrivateKey.generate()).text())
    status, _out, err = call(f"check {SITE}")
    assert (status, "not signed by this hospital's identity" in err) == (2, True)


CLINICAL = {
    "kind": "clinical_table",
    "params": {"variables": [{"kind": "numeric", "name": "age"}]},
}


def test_fingerprints_can_be_pasted_into_the_study(home, call):
    table = {"modality": "clinical", "dim": 2, "extractor": CLINICAL}
    ready = {"modality": "genomics", "dim": 2}
    write_study(site_study(features={"table": table, "ready": ready}), home / "study.yaml")
    status, out, _err = call("fingerprints --study study.yaml")
    assert (status, "not stated yet" in out) == (0, True)
    pasted = yaml.safe_load(out)["features"]
    assert pasted["ready"] is None
    stated = {"table": table | pasted["table"], "ready": ready}
    write_study(site_study(features=stated), home / "study.yaml")
    status, out, _err = call("fingerprints --study study.yaml")
    assert (status, "as the study says" in out) == (0, True)
    stated["table"]["fingerprint"] = "0" * 64
    write_study(site_study(features=stated), home / "study.yaml")
    status, out, _err = call("fingerprints --study study.yaml --json")
    assert status == 1
    assert json.loads(out)["table"]["stated"] == "0" * 64


def commands(group: object, name: str = "site") -> dict[str, object]:
    found = {}
    for key, command in getattr(group, "commands", {}).items():
        inner = commands(command, f"{name} {key}")
        found |= inner or {f"{name} {key}": command}
    return found


@pytest.mark.parametrize("name", commands(typer.main.get_command(app)))
def test_every_command_shows_an_example_of_itself(name):
    command = commands(typer.main.get_command(app))[name]
    assert command.epilog.startswith("Example: ")
    assert f"tumorboard {name}" in command.epilog
    assert command.help


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("check --site nowhere --study study.yaml", 2, "[TB100] this folder holds no hospital"),
        (f"{PREDICT} --patient P9", 1, "[TB320] no such patient: P9"),
    ],
)
def test_the_installed_command_says_the_same(home, line, status, said):
    command = [sys.executable, "-c", "from common.commands.cli import main; main()", "site"]
    done = subprocess.run([*command, *line.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said)


def test_a_consent_is_taken_back(home, call):
    assert call("keygen --site site")[0] == 0
    digest = STUDY.digest()
    assert call(f"withdraw --site site {digest[:12]}")[0] == 2  # there is none yet
    assert call(f"approve {SITE}")[0] == 0
    status, _out, err = call(f"withdraw --site site {digest[:8]}")
    assert (status, "12 characters or more" in err) == (2, True)
    status, out, _err = call(f"withdraw --site site {digest[:12]} --json")
    assert (status, json.loads(out)) == (0, {"study_digest": digest})
    assert "has not approved the study" in call(f"check {SITE}")[1]
    status, _out, err = call(f"withdraw --site site {digest}")
    assert (status, "no consent to this study" in err) == (2, True)
    log = read_audit(home / "site/private/audit.jsonl", None)
    assert [line.event for line in log][-2:] == ["approved", "withdrawn"]


def test_a_consent_in_the_policy_is_taken_out_there(home, call):
    policy = home / "site/site.yaml"
    told = yaml.safe_load(policy.read_text())
    told["approvals"] = [{"study_digest": STUDY.digest(), "epsilon_ceiling": 1.0}]
    policy.write_text(yaml.safe_dump(told))
    status, _out, err = call(f"withdraw --site site {STUDY.digest()}")
    assert (status, "site.yaml: approvals" in err) == (2, True)
