"""Runs that are resumed, killed, fed with bad files: nothing is lost, nothing stops the rest."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_distribution import install

from client.extract.run.extraction_summary import ExtractionSummary
from client.extract.run.item_state import StateStore
from client.extract.run.runner import run_extraction
from common.cohort.features_h5 import FeatureFile, read_features, write_features
from common.cohort.manifest import Manifest, PatientRow
from common.commands.cli_output import Output
from common.errors import ConfigError, ErrorCode, ExtractionError
from common.registry import offered
from common.study.catalogue import EXTRACTORS
from common.study.study import ExtractorSpec, FeatureSpec

EXTRACTOR = '''
import json, os, signal, time
from pathlib import Path
import numpy as np
from client.extract.kinds.extractor import PROBLEMS, Extractor, NothingToExtract, fingerprint_of
from common.contract import Contract
from common.errors import ExtractionError
from common.cohort.features_h5 import FeatureFile

class Params(Contract):
    window: int = 0

class Obedient(Extractor[Params]):
    """Does what the first word of the patient's file says."""
    kind = "obedient"
    params_class = Params

    def __init__(self, feature_name, spec):
        super().__init__(feature_name, spec)
        self.fingerprint = fingerprint_of(self.kind, self.params.model_dump(), code_version=1)

    def inputs(self, row):
        return list(row.slides)

    def extract(self, row):
        path = row.slides[0]
        word, _, argument = path.read_text().partition(" ")
        if word == "fail":
            raise ExtractionError("as told", where=str(path), cure="tell otherwise")
        if word == "empty":
            raise NothingToExtract("no tissue", where=str(path))
        if word == "crash":
            raise ZeroDivisionError("deep in a library")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "die-once" and not Path(argument).exists():
            Path(argument).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "slow":
            time.sleep(float(argument))
        values = np.frombuffer(path.read_bytes()[:6].ljust(6), np.uint8).astype(np.float32)
        if word == "nan":
            values[0] = np.nan
        width = 2 if word == "wide" else 3
        attrs = {PROBLEMS: json.dumps([{"code": "TB311", "where": "b.svs", "reason": "aside"}])}
        return FeatureFile(values.reshape(-1, width), attrs=attrs if word == "aside" else {})
'''

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from client.extract.run.runner import run_extraction
from common.commands.cli_output import Output
from common.cohort.manifest import Manifest, PatientRow
from common.study.study import ExtractorSpec, FeatureSpec

if __name__ == "__main__":
    root = Path(sys.argv[1])
    rows = [PatientRow(patient_id=p.stem, slides=[p]) for p in sorted(root.glob("*.txt"))]
    spec = FeatureSpec(modality="pathology", dim=3, extractor=ExtractorSpec(kind="obedient"))
    run_extraction(Manifest(path=root / "m.csv", rows=rows), {"f": spec}, root / "store",
                   workers=2, output=Output())
"""


class Site:
    """A hospital whose files say what shall happen to them."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.states = root, root / "store", StateStore(root / "store")

    def say(self, **words: str) -> None:
        for patient, word in words.items():
            (self.root / f"{patient}.txt").write_text(word)

    @property
    def manifest(self) -> Manifest:
        files = sorted(self.root.glob("*.txt"))
        rows = [PatientRow(patient_id=file.stem, slides=[file]) for file in files]
        return Manifest(path=self.root / "manifest.csv", rows=rows)

    def run(self, workers: int = 0, **params: Any) -> ExtractionSummary:
        spec = FeatureSpec(
            modality="pathology", dim=3, extractor=ExtractorSpec(kind="obedient", params=params)
        )
        output = Output(stdout=io.StringIO(), stderr=io.StringIO())
        return run_extraction(
            self.manifest, {"f": spec}, self.store, workers=workers, output=output
        )

    def file(self, patient: str) -> Path:
        return self.store / "f" / f"{patient}.h5"

    def outcomes(self, patient: str) -> list[str]:
        return [attempt.outcome for attempt in self.states.load("f", patient).attempts]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "obedient_extractor.py").write_text(EXTRACTOR)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("obedient_extractor", None)
    install(tmp_path, {EXTRACTORS.group: {"obedient": "obedient_extractor:Obedient"}})
    yield Site(tmp_path)
    offered.cache_clear()


def counts(summary: ExtractionSummary) -> tuple[int, int, int, int]:
    return summary.done, summary.skipped, len(summary.failed), len(summary.empty)


def test_one_bad_file_never_stops_the_rest(site: Site) -> None:
    site.say(a="ok", b="fail", c="crash", d="nan", e="wide", f="empty", g="aside", h="ok")
    summary = site.run()
    assert counts(summary) == (3, 0, 4, 1)
    assert [(f.patient_id, f.code) for f in summary.failed] == [
        ("b", ErrorCode.EXTRACTION),
        ("c", ErrorCode.INTERNAL),
        ("d", ErrorCode.FEATURE_NOT_FINITE),
        ("e", ErrorCode.EXTRACTION),
    ]
    assert "ZeroDivisionError: deep in a library" in summary.failed[1].reason
    assert [(f.patient_id, f.code) for f in summary.set_aside] == [("g", "TB311")]
    assert summary.exit_status == 1
    text = "\n".join(summary.lines())
    assert all(f"  {patient}, f: [" in text for patient in "bcdefg")
    assert sorted(path.stem for path in (site.store / "f").iterdir()) == ["a", "g", "h"]
    assert "raise ZeroDivisionError" in site.states.load("f", "c").attempts[0].problems[0].why


def test_settled_items_are_skipped_and_named_again_failures_retried(site: Site) -> None:
    site.say(a="ok", b="fail", f="empty", g="aside")
    site.run()
    before = {path: path.stat().st_mtime_ns for path in (site.store / "f").iterdir()}
    site.say(b="ok")
    summary = site.run()
    assert counts(summary) == (1, 3, 0, 1)
    assert len(summary.set_aside) == 1
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert site.outcomes("b") == ["failed", "done"]
    assert site.outcomes("f") == ["empty"]


def test_changed_input_or_extractor_is_extracted_again(site: Site) -> None:
    site.say(a="ok", b="ok")
    assert counts(site.run()) == (2, 0, 0, 0)
    site.say(a="ok2")
    assert counts(site.run()) == (1, 1, 0, 0)
    assert counts(site.run(window=3)) == (2, 0, 0, 0)
    assert counts(site.run(window=3)) == (0, 2, 0, 0)
    site.say(a="fail")
    assert counts(site.run(window=3)) == (0, 1, 1, 0)
    assert not site.file("a").exists()  # it was of the former slide


def test_damaged_feature_file_is_made_again(site: Site) -> None:
    site.say(a="ok")
    site.run()
    whole = read_features(site.file("a")).features
    site.file("a").write_bytes(site.file("a").read_bytes()[:900])
    assert counts(site.run()) == (1, 0, 0, 0)
    np.testing.assert_array_equal(read_features(site.file("a")).features, whole)


def test_features_brought_ready_made_are_left_alone(site: Site) -> None:
    site.say(a="ok")
    write_features(site.file("a"), FeatureFile(np.ones((1, 3), np.float32)))
    assert counts(site.run()) == (0, 1, 0, 0)
    assert (read_features(site.file("a")).features == 1).all()


def test_absent_and_unreadable_raw_files(site: Site) -> None:
    site.say(a="ok", b="ok")
    manifest = site.manifest
    manifest.rows[0].slides.clear()
    (site.root / "b.txt").unlink()
    spec = FeatureSpec(modality="pathology", dim=3, extractor=ExtractorSpec(kind="obedient"))
    output = Output(json_mode=True)
    summary = run_extraction(manifest, {"f": spec}, site.store, workers=0, output=output)
    assert summary.absent == 1
    assert [f.patient_id for f in summary.failed] == ["b"]
    assert site.outcomes("b") == ["failed"]


def test_wrong_fingerprint_stops_before_any_work(site: Site) -> None:
    site.say(a="ok")
    spec = FeatureSpec(
        modality="pathology",
        dim=3,
        fingerprint="0" * 64,
        extractor=ExtractorSpec(kind="obedient"),
    )
    with pytest.raises(ConfigError, match="not the one the study") as caught:
        run_extraction(site.manifest, {"f": spec}, site.store, workers=0, output=Output())
    assert caught.value.code == ErrorCode.FEATURE_FINGERPRINT
    assert not site.store.exists()


def test_feature_set_without_extractor_is_left_to_the_hospital(site: Site) -> None:
    site.say(a="ok")
    spec = FeatureSpec(modality="pathology", dim=3)
    run = run_extraction(site.manifest, {"f": spec}, site.store, workers=0, output=Output(True))
    assert counts(run) == (0, 0, 0, 0)


def test_dying_workers_are_survived_and_the_item_blamed(site: Site, tmp_path: Path) -> None:
    words = {f"p{i}": "ok" for i in range(6)}
    site.say(**words, x="die", y=f"die-once {tmp_path / 'marker'}", z="fail")
    summary = site.run(workers=2)
    assert counts(summary) == (7, 0, 2, 0)
    assert [f.patient_id for f in summary.failed] == ["x", "z"]
    assert "died twice" in summary.failed[0].reason
    assert site.outcomes("x") == ["interrupted", "failed"]
    assert site.outcomes("y")[-1] == "done"
    site.say(x="fail")
    assert counts(site.run()) == (0, 7, 2, 0)


def test_kill_9_loses_nothing_but_the_items_in_flight(site: Site) -> None:
    """A real process is killed half-way; the next run ends with the files of an undisturbed one."""
    site.say(**{f"p{i}": f"slow 0.{i}" for i in range(1, 5)}, q1="slow 60", q2="slow 60")
    script = site.root / "run.py"
    script.write_text(RUN)
    run = [sys.executable, str(script), str(site.root)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    with subprocess.Popen(run, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: running(site, "q1") and running(site, "q2"))
        workers = [site.states.load("f", name).attempts[-1].pid for name in ("q1", "q2")]
        with pytest.raises(ExtractionError, match="another extraction"):
            site.run()
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers))
    early = {f"p{i}": site.file(f"p{i}") for i in range(1, 5)}
    before = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in early.items()}
    assert not site.file("q1").exists()
    for name in ("q1", "q2"):
        state = json.loads(site.states.path("f", name).read_text())
        assert [attempt["outcome"] for attempt in state["attempts"]] == ["running"]
    site.say(q1="ok", q2="ok")
    assert counts(site.run()) == (2, 4, 0, 0)
    for name, path in early.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == before[name]
    assert site.outcomes("q1") == ["interrupted", "done"]
    undisturbed = Site(site.root)
    undisturbed.store = site.root / "store2"
    undisturbed.run()
    for path in (site.store / "f").iterdir():
        assert undisturbed.file(path.stem).read_bytes() == path.read_bytes()


def running(site: Site, patient: str) -> bool:
    return site.outcomes(patient) == ["running"]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def test_unreadable_state_is_kept_aside(site: Site) -> None:
    site.say(a="ok")
    path = site.states.path("f", "a")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert counts(site.run()) == (1, 0, 0, 0)
    assert path.with_suffix(".unreadable").read_text() == "{"
