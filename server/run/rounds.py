"""Run a federated study from the first handshake to the last table; resumable at any moment.

`enrolling -> ready -> round k -> evaluating -> done | failed(reason) | stopped`. After every
round the checkpoint is on disk. Running the same study in the same folder again continues after
the last committed round with identical bytes; a finished run is read back without asking any
site.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from common.commands.cli_output import Output
from common.errors import ErrorCode, TumorboardError
from common.metrics.summaries.paired import Comparison
from common.models.base.build import build_model
from common.models.base.weights_origin import check_origin
from common.protocol.evaluation_request import FEDERATED, PERSONAL
from common.storage.atomic_file import write_text
from common.storage.full_disk import disk_full_of
from common.study.study import Study
from common.trust.plugins import check_plugins
from common.wire import Arrays, arrays_digest
from server.exchange.enrolment import drop_revoked, enrol_all
from server.exchange.exchange import Exchange
from server.exchange.masked_replies import MaskedReplies
from server.exchange.plain_replies import PlainReplies
from server.run.evaluation import Evaluation, first_request
from server.run.model_card import write_model_card
from server.run.one_round import compare_models, evaluate, last_checkpoint, train_round
from server.run.privacy_facts import PrivacyFacts, privacy_facts
from server.session.checkpoint import (
    Checkpoint,
    RoundRecord,
    final_model,
    save_checkpoint,
    write_arrays,
)
from server.session.run_state import SiteState
from server.session.session import RunSession, open_session
from server.session.site_link import SiteLink

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        study: The study.
        run_id: Identifier of the run.
        run_dir: Folder with checkpoints, model and tables.
        arrays: Final model, float32.
        history: One record per round.
        evaluations: Label -> tables and grid; `federated` is the final model, `personal` each
            site's own beside it, if the study has them.
        sites: What is known about every site of the roster.
        privacy: What was spent and what the mode promises.
        comparisons: Label -> that model minus the federated one by metric, paired on the same
            patients; empty where tables carry noise.
    """

    study: Study
    run_id: str
    run_dir: Path
    arrays: Arrays
    history: list[RoundRecord]
    evaluations: dict[str, Evaluation]
    sites: dict[str, SiteState]
    privacy: PrivacyFacts
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)

    @property
    def model_digest(self) -> str:
        """Digest of the final model."""
        return arrays_digest(self.arrays)


def run_study(study: Study, link: SiteLink, run_dir: Path, *, output: Output) -> RunResult:
    """Run, or continue, a study and return its result.

    Args:
        study: The frozen study.
        link: Way to the sites.
        run_dir: Folder of this run; made if it does not exist.
        output: Where progress is shown.

    Raises:
        ConfigError: The study uses code of another distribution than is installed here (PLUGIN).
        PrivacyError: The study is private, but not the origin of its weights (WEIGHTS_ORIGIN).
        RunError: Too few sites, a damaged checkpoint, or a folder that holds another run. The
            state on disk is `failed` with the reason; what was committed stays.
    """
    with open_session(study, link, run_dir, output) as session:
        try:
            return _run(session)
        except TumorboardError as error:
            _end(session, error.code, _in_short(error))
            raise
        except Exception as error:
            full = disk_full_of(error)
            if full is not None:
                _end(session, full.code, full.what)
            else:
                _end(session, ErrorCode.INTERNAL, type(error).__name__)
            raise


def exchange_of(session: RunSession) -> Exchange:
    """Return how a run collects from its sites; the one place that asks for the privacy mode."""
    if session.study.privacy.mode == "distributed":
        return MaskedReplies(session)
    return PlainReplies(session)


def _run(session: RunSession) -> RunResult:
    if session.state.phase != "done":
        check_plugins(session.study)
        check_origin(session.study, build_model(session.study))
    exchange, checkpoint = exchange_of(session), last_checkpoint(session)
    if session.state.phase == "done" and checkpoint.round:
        return _result(session, exchange, checkpoint)
    session.enter(phase="enrolling", reason=None)
    session.journal.write(
        "run_started",
        round=checkpoint.round,
        study=session.state.study_digest,
        model=arrays_digest(checkpoint.parameters),
    )
    enrol_all(session)
    if checkpoint.round == 0:
        save_checkpoint(session.checkpoints, checkpoint)
    session.enter(phase="ready", round=checkpoint.round)
    checkpoint = _train(session, exchange, checkpoint)
    drop_revoked(session)
    session.enter(phase="evaluating")
    result = _result(session, exchange, checkpoint)
    write_model_card(session, session.run_dir / MODEL_FILE, checkpoint.round)
    session.enter(phase="done")
    session.journal.write("run_done", round=checkpoint.round, model=result.model_digest)
    return result


def _end(session: RunSession, code: ErrorCode, what: str) -> None:
    """Write why the run ends before it is done."""
    phase = "stopped" if code == ErrorCode.STOPPED else "failed"
    session.enter(phase=phase, reason=f"{code}: {what}")
    session.journal.write(f"run_{phase}", round=session.state.round, code=str(code))


def _in_short(error: TumorboardError) -> str:
    """Return what ended the run; too few sites are named with their codes."""
    reason = error.code == ErrorCode.QUORUM and error.why
    return f"{error.what} ({error.why})" if reason else error.what


def _train(session: RunSession, exchange: Exchange, checkpoint: Checkpoint) -> Checkpoint:
    rounds = session.study.training.rounds
    with session.output.progress(rounds, "rounds") as progress:
        if checkpoint.round:
            progress.skip(checkpoint.round, "resumed")
        while checkpoint.round < rounds:
            session.check_stop()
            checkpoint = train_round(session, exchange, checkpoint)
            save_checkpoint(session.checkpoints, checkpoint)
            _commit(session, checkpoint)
            progress.advance(1, _note(checkpoint.history[-1]))
    return checkpoint


def _commit(session: RunSession, checkpoint: Checkpoint) -> None:
    """Write a committed round to state and audit log."""
    record = checkpoint.history[-1]
    session.note_presence()
    session.enter(round=checkpoint.round)
    session.journal.write(
        "round_committed",
        round=checkpoint.round,
        model=arrays_digest(checkpoint.parameters),
        sites=",".join(record.sites),
        dropped=",".join(f"{site}:{code}" for site, code in sorted(record.dropped.items())),
    )


def _note(record: RoundRecord) -> str:
    loss = "" if record.loss is None else f", loss {record.loss:.4f}"
    return f"{len(record.sites)} sites{loss}"


def _result(session: RunSession, exchange: Exchange, checkpoint: Checkpoint) -> RunResult:
    arrays = final_model(checkpoint)
    write_arrays(session.run_dir / MODEL_FILE, arrays)
    facts = {
        "study_digest": session.state.study_digest,
        "run_id": session.state.run_id,
        "model_digest": arrays_digest(arrays),
        "rounds": checkpoint.round,
        "averaged": checkpoint.averaged,
    }
    write_text(session.run_dir / "model.json", json.dumps(facts, sort_keys=True, indent=1))
    models = dict.fromkeys(session.state.enrolled, arrays)
    shared = evaluate(session, exchange, models, first_request(session, FEDERATED))
    evaluations = {FEDERATED: shared}
    comparisons: dict[str, dict[str, Comparison]] = {}
    if session.study.training.personal is not None:
        own = evaluate(session, exchange, models, first_request(session, PERSONAL, personal=True))
        evaluations[PERSONAL] = own
        comparisons[PERSONAL] = compare_models(session, exchange, (shared, models), (own, models))
    return RunResult(
        study=session.study,
        run_id=session.state.run_id,
        run_dir=session.run_dir,
        arrays=arrays,
        history=checkpoint.history,
        evaluations=evaluations,
        comparisons=comparisons,
        sites=session.state.sites,
        privacy=privacy_facts(session),
    )
