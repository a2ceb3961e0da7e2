import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from unlimited_budgets import UNLIMITED

from client.operate.ledger_cli import app
from client.site.sealed_replies import SealedReplies
from client.site.site_folder import load_policy
from common.commands.audit_cli import app as audit_app
from common.errors import BudgetError, ConfigError, ErrorCode, LedgerError
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.privacy.accounting import composed_epsilon, gaussian_mu, training_sigma

STUDY, MODEL = "a1" * 32, "b2" * 32
SIGMA = training_sigma(3.0, 1e-5, 10)
runner = CliRunner()


def training(number: int) -> SpendEntry:
    return SpendEntry(
        study_digest=STUDY,
        run_id="run-1",
        round=number,
        model_digest=MODEL,
        partition="train",
        purpose="train",
        mechanism="skellam",
        parameters={"sigma": SIGMA},
        mu_squared=1 / SIGMA**2,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital-a"
    folder.mkdir()
    (folder / "site.yaml").write_text(
        f"site_id: hospital-a\napprovals:\n  - study_digest: {STUDY}\n    epsilon_ceiling: 4.0\n"
    )
    ledger = open_ledger(folder)
    for number in range(1, 11):
        ledger.commit(ledger.reserve(training(number)), "c3" * 32)
    ledger.reserve(training(11))
    return folder


def open_ledger(folder: Path) -> Ledger:
    policy = load_policy(folder)
    return Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))


def call(*arguments: object) -> dict[str, object]:
    result = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else {"text": result.stdout}


def test_show_gives_what_was_spent_and_what_is_open(site: Path) -> None:
    told = call("show", "--site", site, "--json")
    of_study = next(a for a in told["accounts"] if a["study_digest"] == STUDY)
    assert of_study["releases"] == 11
    assert of_study["epsilon"] == pytest.approx(composed_epsilon(11 / SIGMA**2, 1e-5))
    assert of_study["left"] == pytest.approx(4.0 - composed_epsilon(11 / SIGMA**2, 1e-5))
    assert [r["entry"]["round"] for r in told["open"]] == [11]
    text = call("show", "--site", site)["text"]
    assert "line 22" in text
    assert "held_out" not in text


def test_looking_changes_nothing(site: Path) -> None:
    files = {f: f.read_bytes() for f in (site / "private").iterdir()}
    call("show", "--site", site)
    call("verify", "--site", site)
    assert {f: f.read_bytes() for f in (site / "private").iterdir()} == files


def test_verify_names_the_broken_line(site: Path) -> None:
    assert call("verify", "--site", site, "--json")["lines"] == 22
    path = site / "private" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"run-1", b"run-2"), *lines[4:]]))
    with pytest.raises(LedgerError) as caught:
        call("verify", "--site", site)
    assert "line 4" in caught.value.where


def test_export_is_a_copy_an_auditor_can_check(site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    told = call("export", copy, "--site", site, "--json")
    assert copy.read_bytes() == (site / "private" / "ledger.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        call("export", copy, "--site", site)
    audited = runner.invoke(audit_app, ["ledger", str(copy), "--json"], catch_exceptions=False)
    report = json.loads(audited.stdout)
    assert report["accountants_agree"]
    assert report["head"] == told["head"]
    account = next(a for a in report["accounts"] if a["study_digest"] == STUDY)
    assert account["second_epsilon"] == pytest.approx(account["epsilon"], rel=5e-3)


def test_audit_refuses_a_shortened_or_damaged_copy(site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    head = call("export", copy, "--site", site, "--json")["head"]
    whole = copy.read_bytes()

    def audit(*options: str) -> None:
        runner.invoke(audit_app, ["ledger", str(copy), *options], catch_exceptions=False)

    audit("--head", str(head))
    copy.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(LedgerError) as caught:
        audit("--head", str(head))
    assert caught.value.code == ErrorCode.LEDGER_ROLLBACK
    for damaged in (whole[:-1], whole[:-9] + b"0" + whole[-8:], whole + b"{}", b""):
        copy.write_bytes(damaged)
        with pytest.raises(LedgerError):
            audit()


def test_audit_fails_where_accountants_disagree(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    wrong = training(1).model_copy(
        update={"parameters": {"sigma": 0.8, "sampling_rate": 0.05}, "mu_squared": 1e-4}
    )
    ledger.reserve(wrong)
    result = runner.invoke(audit_app, ["ledger", str(path)], catch_exceptions=False)
    assert result.exit_code == 3
    assert "disagree" in result.stdout


def test_release_gives_back_what_was_never_computed(site: Path) -> None:
    call("release", 22, "--site", site, "--by", "M. Roe", "--reason", "no GPU that day")
    assert open_ledger(site).epsilon(STUDY, "train", 1e-5) == pytest.approx(3.0, rel=1e-9)
    with pytest.raises(BudgetError):
        call("release", 2, "--site", site, "--by", "M. Roe", "--reason", "I want it back")


def test_release_of_a_stored_reply_is_refused(site: Path) -> None:
    policy = load_policy(site)
    SealedReplies(policy.state / "replies").store(("train", "run-1", 11, MODEL), "h", b"p")
    with pytest.raises(BudgetError, match="computed"):
        call("release", 22, "--site", site, "--by", "M. Roe", "--reason", "no GPU that day")


def test_reconcile_accepts_a_restored_ledger_and_charges(site: Path) -> None:
    path = site / "private" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lost = json.loads(lines[-1])["sha256"]
    path.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(LedgerError):
        open_ledger(site)
    arguments = ["--study", STUDY, "--by", "M. Roe", "--reason", "restored from backup"]
    call("reconcile", "--site", site, "--charge-epsilon", "1.0", *arguments)
    ledger = open_ledger(site)
    ledger.require_head(lost)
    charged = 10 / SIGMA**2 + gaussian_mu(1.0, 1e-5) ** 2
    assert ledger.spent(STUDY, "train") == pytest.approx(charged)


def test_both_figures_are_shown(site: Path) -> None:
    """Five shares of noise: alone, a hospital has a fifth of its variance, five times mu^2."""
    shared = training(1).model_copy(
        update={
            "study_digest": "d4" * 32,
            "run_id": "run-2",
            "parameters": {"sigma": SIGMA, "shares": 5},
        }
    )
    policy = load_policy(site)
    ledger = Ledger(policy.ledger, policy.site_id, UNLIMITED)
    ledger.commit(ledger.reserve(shared), "c3" * 32)
    told = call("show", "--site", site, "--json")
    accounts = {a["study_digest"]: a for a in told["accounts"]}
    assert accounts["d4" * 32]["epsilon"] == composed_epsilon(1 / SIGMA**2, 1e-5)
    alone = composed_epsilon(5 / SIGMA**2, 1e-5)
    assert accounts["d4" * 32]["fallback_epsilon"] == pytest.approx(alone)
    assert accounts[STUDY]["fallback_epsilon"] is None
    assert "all collude" in call("show", "--site", site)["text"]
