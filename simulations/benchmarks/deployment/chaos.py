"""Run a consortium under faults: kills, outages, full disks, old ledgers, intruders, bad lines."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from client.operate.site_processes import SitePaths
from client.site.site_folder import load_policy
from common.errors import ErrorCode
from common.ledger.ledger import Ledger, LedgerBudgets
from common.privacy.plan import Mode
from common.study.study import Study
from common.trust.audit_log import read_audit
from server.operate.run_control import request_run, stop_run
from server.operate.run_folder import RunFolder
from server.report.build import build_report
from server.report.content import make_content
from server.run.finished_run import read_finished_run
from server.session.checkpoint import load_checkpoint
from simulations.attackers.attempts import AuditWatch
from simulations.attackers.chaos_scenes import (
    Stage,
    full_disk,
    hostile_hospital,
    keep_ledger,
    restart_with_older_ledger,
    superlink_away,
    wait_for_end,
    wait_for_round,
)
from simulations.attackers.faults import FaultInjector
from simulations.attackers.hostile_agent import ATTACKS
from simulations.attackers.hostile_relay import attack
from simulations.attackers.intruders import all_attempts, slow_lines, tapped_line
from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main
from simulations.consortium.consortium_demo import check_agreement
from simulations.consortium.local_consortium import running

DURATION = "about 10 minutes on 2 idle cores"
STUDIES = 2
"""Fewest studies over which the kills are spread, so that both modes meet them."""


@dataclass(frozen=True)
class ChaosSize(Size):
    """How much trouble.

    Attributes:
        scenes: Names of the scenes.
        faults: Kills.
        away_s: Seconds without a SuperLink.
        cut_s: Seconds without a line.
    """

    scenes: tuple[str, ...] = (
        "kills", "superlink_down", "hospital_troubles", "bad_hospital", "bad_relay", "intruders",
        "lines",
    )  # fmt: skip
    faults: int = 10
    away_s: float = 60.0
    cut_s: float = 90.0


FULL = ChaosSize(seeds=(20,))
MINIATURE = ChaosSize(seeds=(20,), partial=True, scenes=("bad_relay",))


def checks(data: Path, size: ChaosSize) -> Iterator[Check]:
    """Yield the checks; no real data is used."""
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        stage = Stage.build(Path(folder) / "c")
        with running(stage.consortium):
            for name in size.scenes:
                progress(f"scene: {name}")
                yield from SCENES[name](stage, size)


def kills(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks after a number of kill -9 at random moments, over several studies."""
    faults, rounds = size.faults, 12
    injector = FaultInjector(stage.consortium, size.seeds[0])
    version, ended, same, agreed = 100, 0, [], []
    while injector.count < faults:
        mode: Mode = "none" if version % 2 == 0 else "distributed"
        study = stage.study(version, mode, rounds)
        run = stage.begin(study)
        most = min(-(-faults // STUDIES), faults - injector.count)
        injector.kill_until_ended(run, pause_s=(2.0, 6.0), most=most, limit_s=600)
        ended += wait_for_end(run) == "done"
        if mode == "none":
            same.append(_is_faultless(stage, study, run))
        agreed.append(_all_agree(stage, run))
        progress(f"  {injector.count} kills so far: {injector.killed}")
        version += 1
    studies = version - 100
    yield Check("kill -9 at random moments", injector.count, faults, ">=", str(injector.killed))
    yield Check("studies that ended as they should", ended, studies, "==")
    yield Check("models identical to the faultless ones, mode none", sum(same), len(same), "==")
    yield Check("studies whose status, ledgers and logs agree", sum(agreed), studies, "==")


def superlink_down(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks after the SuperLink was away for a minute in mid-study."""
    study = stage.study(200, "none", 6)
    run = stage.begin(study)
    wait_for_round(run, 2)
    superlink_away(stage, size.away_s)
    phase = wait_for_end(run)
    what = "study ends after a while without SuperLink"
    yield _flag(what, phase == "done", f"{size.away_s:.0f} s")
    yield _flag("its model is the faultless one", _is_faultless(stage, study, run))


def hospital_troubles(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks of a full disk and of a ledger from before, at one hospital of three."""
    bad = sorted(stage.lines)[0]
    run = stage.begin(stage.study(300, "local", 8, quorum=2, timeout_s=30))
    wait_for_round(run, 1)
    older = keep_ledger(stage, bad)
    with full_disk(stage, bad):
        wait_for_round(run, 3)
    wait_for_round(run, 4)
    stop_run(stage.consortium.folder, run.name, now=False, must_exist=True)
    restart_with_older_ledger(stage, bad, older)
    request_run(stage.consortium.folder, run)
    phase = wait_for_end(run)
    checkpoint = load_checkpoint(run.path / "checkpoints")
    dropped = [h.dropped.get(bad, "") for h in checkpoint.history] if checkpoint else []
    codes = sorted({code for code in dropped[1:3] if code})
    named = str(ErrorCode.DISK_FULL) in codes
    yield _flag("study goes on without a hospital whose disk is full", bool(codes), str(codes))
    yield _flag("the coordinator gets an error that names the full disk (TB910)", named, str(codes))
    state = run.state()
    code = state.sites[bad].refusal_code if state else None
    rolled_back = code == str(ErrorCode.LEDGER_ROLLBACK)
    yield _flag("a ledger from before is refused by name (TB421)", rolled_back, str(code))
    yield _flag("the study ends all the same", phase == "done", phase)


def bad_hospital(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks of a hospital that sends nonsense, another kind in every round."""
    bad = sorted(stage.lines)[-1]
    watch = AuditWatch.of_site(stage.consortium.sites[bad])
    with hostile_hospital(stage, bad):
        run = stage.begin(stage.study(400, "none", len(ATTACKS), quorum=2, timeout_s=60))
        phase = wait_for_end(run)
    stage.consortium.join(bad)
    checkpoint = load_checkpoint(run.path / "checkpoints")
    history = checkpoint.history if checkpoint else []
    refused = [
        record.dropped.get(bad) in codes
        for record, (_, codes) in zip(history, ATTACKS.values(), strict=False)
    ]
    answers = str([record.dropped.get(bad) for record in history])
    yield Check("attacks refused with their code", sum(refused), len(ATTACKS), "==", answers)
    folder = stage.consortium.folder
    logged = {
        record.round
        for record in read_audit(folder.audit, folder.audit_public_key())
        if record.site == bad and record.code and record.event.endswith("refused")
    }
    yield Check("of these in the coordinator's audit log", len(logged), len(ATTACKS) - 1, ">=")
    sent = {record.round for record in watch.added(lambda r: r.facts.get("method") == "train")}
    yield Check("of these in the hospital's audit log", len(sent), len(ATTACKS), ">=")
    yield _flag("the run goes on to its end", phase == "done", phase)


def bad_relay(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks of a relay that calls the agent's socket at will."""
    site_id = sorted(stage.lines)[1]
    study = stage.study(500, "local", 4)
    stage.consortium.agree(study)
    home = stage.consortium.sites[site_id]
    loot = attack(SitePaths.of(home).socket, study, seed=size.seeds[0])
    policy = load_policy(home)
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    ledger.verify()
    epsilon = ledger.epsilon(study.digest(), "train", study.privacy.delta)
    note = f"{loot.calls} calls, refused: {loot.refused}"
    yield Check("answers that should not have been given", len(loot.unexpected), 0, "==", note)
    yield Check(
        "different updates released for one round",
        max((len(digests) for digests in loot.replies.values()), default=0),
        1,
        "<=",
        f"rounds {sorted(loot.replies)}",
    )
    yield Check("epsilon spent by all of it", epsilon, study.privacy.epsilon + 1e-9, "<=")


def intruders(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks of everybody who tries to get in while a study is running.

    The lines are slow meanwhile, so that the study is still running when the last has tried.
    """
    rounds, delay_s, private = 100, 0.05, stage.study(901, "local", 4)
    stage.consortium.agree(private)
    study = stage.study(900, "none", rounds, timeout_s=240)
    tapped = sorted(stage.lines)[0]
    with tapped_line(stage, tapped) as tap:
        run = stage.begin(study)
        wait_for_round(run, 1)
        with slow_lines(stage, delay_s):
            for attempt in all_attempts(stage, run, private, tap, tapped):
                progress(f"  {attempt.what}: {attempt}")
                yield _flag(f"{attempt.what}: refused", attempt.is_refused, str(attempt))
                logged = bool(attempt.coordinator and attempt.hospital)
                yield _flag(f"{attempt.what}: in the logs", logged, str(attempt))
            state = run.state()
            reached = state.round if state else 0
            yield Check("rounds when the last had tried", reached, rounds, "<")
        phase = wait_for_end(run)
    same = phase == "done" and _is_faultless(stage, study, run)
    yield _flag("the run goes on, to the faultless model", same, phase)


def lines(stage: Stage, size: ChaosSize) -> Iterator[Check]:
    """Yield checks of delay, loss, a cut in mid-upload, and a hospital that is too slow."""
    for line in stage.lines.values():
        line.line.delay_s, line.line.loss = 0.1, 0.01
    study = stage.study(600, "none", 3)
    run = stage.begin(study)
    phase = wait_for_end(run)
    same = phase == "done" and _is_faultless(stage, study, run)
    yield _flag("200 ms there and back, 1 % loss: the faultless model", same, phase)
    for line in stage.lines.values():
        line.line.delay_s = line.line.loss = 0.0
    first, *_, last = stage.lines.values()
    study = stage.study(700, "none", 4)
    run = stage.begin(study)
    wait_for_round(run, 1)
    first.cut(size.cut_s)
    phase = wait_for_end(run)
    same = phase == "done" and _is_faultless(stage, study, run)
    yield _flag("line of a hospital cut for a while: the faultless model", same, phase)
    run = stage.begin(stage.study(800, "none", 5, quorum=2, timeout_s=20))
    wait_for_round(run, 1)
    last.silence(size.cut_s)
    phase = wait_for_end(run)
    checkpoint = load_checkpoint(run.path / "checkpoints")
    slowest = max(h.seconds for h in checkpoint.history) if checkpoint else None
    yield _flag("a silent hospital does not stop a quorum of two", phase == "done", phase)
    yield Check("longest round beside it, s; deadline 20 s", slowest, 40, "<=")


SCENES: dict[str, Callable[[Stage, ChaosSize], Iterator[Check]]] = {
    scene.__name__: scene
    for scene in (
        kills, superlink_down, hospital_troubles, bad_hospital, bad_relay, intruders, lines
    )
}  # fmt: skip


def _flag(what: str, holds: bool, note: str = "") -> Check:
    return Check(what, float(holds), 1, "==", note)


def _is_faultless(stage: Stage, study: Study, run: RunFolder) -> bool:
    """Return whether a run ended in the model that it has without any fault."""
    file = run.path / "model.safetensors"
    return file.exists() and file.read_bytes() == stage.faultless_model(study)


def _all_agree(stage: Stage, run: RunFolder) -> bool:
    build_report(make_content(read_finished_run(run.path)), run.path)
    agreements = check_agreement(stage.consortium, run)
    for agreement in agreements:
        if not agreement.holds:
            progress(f"  {agreement}")
    return all(agreement.holds for agreement in agreements)


if __name__ == "__main__":
    main(__file__)
