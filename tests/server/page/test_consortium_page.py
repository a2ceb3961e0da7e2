"""The coordinator's folder on its page: certificate, roster, newest run, audit log."""

import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from fastapi.testclient import TestClient
from page_runs import WrittenRun, served_run
from seen_pages import opened, violations

from client.site.enrol_request import make_keys, write_request
from client.site.site_folder import load_policy
from client.site.site_template import write_site_template
from common.page.audit_tail import LINES, audit_tail
from common.page.processes import process_problems
from common.process.supervisor import Child, Supervisor
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log, provision
from server.consortium.provision_roster import admit, revoke
from server.flower.superlink import status_file
from server.page.consortium_files import newest_run, read_consortium
from server.page.run_view import run_page

NOW = datetime.now(UTC)
DOWN = "The SuperLink is not running: no hospital can take part."


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A consortium of one admitted and one revoked hospital."""
    folder = tmp_path_factory.mktemp("page")
    where = "127.0.0.1:8443"
    root = provision(folder / "lab", name="lab", address=where, listen=where, sans=[])
    lab = ConsortiumFolder.open(root)
    for site_id in ("site-a", "site-b"):
        write_site_template(folder / site_id, site_id)
        policy = load_policy(folder / site_id)
        make_keys(policy)
        write_request(policy, f"Hospital {site_id}", folder / f"{site_id}.json")
        admit(lab, folder / f"{site_id}.json")
    revoke(lab, "site-b", "left the <b>study</b>")
    return root


@pytest.fixture
def lab(whole, tmp_path) -> ConsortiumFolder:
    shutil.copytree(whole, tmp_path / "lab")
    return ConsortiumFolder.open(tmp_path / "lab")


@cache
def client_of(folder) -> TestClient:
    return TestClient(run_page(folder), base_url="http://localhost")


def page(folder) -> str:
    client = client_of(folder)
    assert client.get("/status.json").status_code == 200
    return client.get("/").text


def codes(lab, now=NOW):
    problems = read_consortium(lab.root, now).problems
    return {(p.weight, p.code) for p in problems if p.what != DOWN}


def test_roster_certificate_and_audit_log(lab):
    found = read_consortium(lab.root, NOW)
    assert found.consortium.name == "lab"
    assert found.certificate_days == pytest.approx(397, abs=1)
    assert [(m.site_id, m.status) for m in found.roster.members] == [
        ("site-a", "admitted"),
        ("site-b", "revoked"),
    ]
    assert [row.what for row in found.audit] == ["revoked", "admitted", "admitted", "provisioned"]
    assert [p.what for p in found.problems] == [DOWN]
    text = page(lab.root)
    assert "Consortium lab" in text
    assert "left the &lt;b&gt;study&lt;/b&gt;" in text
    assert "No run here yet" in text


@pytest.mark.parametrize(
    ("days", "told"),
    [(300, set()), (368, {("warns", "TB522")}), (398, {("stops", "TB522")})],
)
def test_a_certificate_is_told_before_it_ends(lab, days, told):
    assert codes(lab, NOW + timedelta(days=days)) == told


def test_the_newest_run_is_shown(lab):
    assert newest_run(lab.root).parent == lab.runs
    for number, name in enumerate(("old", "new")):
        made = WrittenRun(lab.runs / name)
        made.enrol()
        os.utime(lab.runs / name / "run.json", (number, number))
    assert newest_run(lab.root).name == "new"
    text = page(lab.root)
    assert "Ready: enough sites take part" in text
    assert "the last touched of 2" in text
    os.utime(lab.runs / "old" / "run.json", (9, 9))
    assert newest_run(lab.root).name == "old"
    assert newest_run(lab.runs / "new") == lab.runs / "new"


def test_refusals_are_noted_once_a_kind(lab):
    log = audit_log(lab)
    for _ in range(3):
        log.append("node_refused", site="site-b", code="TB521")
    (problem,) = [p for p in read_consortium(lab.root, NOW).problems if p.what != DOWN]
    assert (problem.weight, problem.where, problem.code) == ("notes", "site-b", "TB521")
    assert "3 times" in problem.what
    assert "node refused" in problem.what


def test_only_the_last_lines_are_read_and_torn_ones_left_out(lab):
    log = audit_log(lab)
    for number in range(130):
        log.append("round_committed", run="r", round=number)
    assert len(audit_tail(lab.audit)) == LINES
    with lab.audit.open("ab") as stream:
        stream.write(b'{"sequence": 9')
    rows = audit_tail(lab.audit)
    assert len(rows) == LINES
    assert [row.round for row in rows] == list(range(129, 129 - LINES, -1))
    assert audit_tail(lab.root / "none") == ()


def test_every_file_may_be_missing_or_wrong(lab):
    WrittenRun(lab.runs / "run").enrol()
    for file in [f for f in lab.root.rglob("*") if f.is_file() and f.suffix != ".key"]:
        before = file.read_bytes()
        for content in (b"\xff\x00", before[: len(before) // 2]):
            file.write_bytes(content)
            assert "<h1>" in page(lab.root)
        file.unlink()
        assert "<h1>" in page(lab.root)
        file.write_bytes(before)


def test_a_changed_roster_is_told(lab):
    lab.roster_file.write_text(lab.roster_file.read_text().replace("revoked", "admitted"))
    assert ("warns", "TB521") in codes(lab)


def test_private_keys_stay_off_the_page(lab):
    text = page(lab.root)
    for key in (lab.ca_key, lab.roster_key, lab.server_key, lab.audit_key):
        assert not any(line in text for line in key.read_text().split() if len(line) > 20)


def test_in_a_browser(chromium, lab):
    made = WrittenRun(lab.runs / "run")
    made.enrol()
    made.commit(missing={"site-b": "silent"})
    audit_log(lab).append("node_refused", site="site-b", code="TB521")
    for scheme, size in (("light", "narrow"), ("dark", "desktop")):
        with (
            served_run(lab.root) as url,
            opened(chromium, url, size=size, color_scheme=scheme) as seen,
        ):
            assert violations(seen) == []
            assert seen.locator("#audit-heading").is_visible()


def test_processes_that_run_answer_and_were_restarted(lab):
    """A real supervisor over children that stay, that end at once, that do not answer."""
    children = [
        Child("executor", ["sleep", "60"], lab.superlink / "executor.log"),
        Child("helper", ["false"], lab.superlink / "helper.log"),
        Child("superlink", ["sleep", "60"], lab.superlink_log),
    ]
    stop = threading.Event()
    health = {"superlink_health": "127.0.0.1:9"}
    supervisor = Supervisor(children, status_file(lab), facts=health)
    running = threading.Thread(target=supervisor.run, args=(stop,))
    running.start()
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            rows = {row.name: row for row in read_consortium(lab.root, NOW).processes or ()}
            if rows and rows["executor"].healthy and rows["helper"].pid is None:
                break
            time.sleep(0.1)
        assert (rows["executor"].healthy, rows["executor"].restarts) == (True, 0)
        assert (rows["helper"].healthy, rows["superlink"].healthy) == (False, False)
        told = {p.where: p for p in process_problems(tuple(rows.values()))}
        assert {where: p.weight for where, p in told.items()} == {
            "helper": "warns",
            "superlink": "warns",
        }
        assert "is down" in told["helper"].what
        assert "does not answer" in told["superlink"].what
        assert str(lab.superlink_log) in told["superlink"].cure
        assert "not answering" in page(lab.root)
    finally:
        stop.set()
        running.join()
    assert read_consortium(lab.root, NOW).processes is None
