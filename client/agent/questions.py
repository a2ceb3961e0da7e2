"""Answer only questions about held-out patients that follow from the approved study, each once.

Labels, models and cuts come from the server, so without a limit it could ask about as many models
of its own making as it likes; exact tables cost no epsilon, and a few of them give a patient away.
"""

from collections.abc import Sequence

from common.errors import ErrorCode, ProtocolError
from common.ledger.ledger_entry import SpendEntry
from common.protocol.evaluation_request import evaluated_model, study_questions
from common.protocol.protocol import EvaluateRequest
from common.study.study import Study


def check_question(
    study: Study, request: EvaluateRequest, past: Sequence[SpendEntry], exact_runs: int
) -> None:
    """Refuse a question that the study does not imply, or that was asked before in other words.

    Args:
        study: The approved study.
        request: What is asked; not one whose answer is stored, which is sent again.
        past: Everything this hospital released in the study.
        exact_runs: Runs of the study whose exact tables may leave, as the consent says.

    Raises:
        ProtocolError: With code POLICY.
    """
    if request.round or (request.label, request.phase) not in study_questions(
        study, request.release
    ):
        raise _refused(
            f"the study implies no evaluation '{request.label}' in phase {request.phase}",
            "only its final models are evaluated, in the phases that consent was given to",
        )
    if request.personal != request.label.startswith("personal"):
        raise _refused(f"'{request.label}' asks for the wrong kind of model")
    evaluations = [entry for entry in past if entry.partition == "held_out"]
    for entry in evaluations:
        if entry.run_id != request.run_id:
            continue
        if entry.purpose == f"evaluate {request.label} {request.phase}":
            raise _refused(
                f"'{request.label}' was evaluated in phase {request.phase} before",
                "the same question is answered with the stored tables, another one is not",
            )
        if entry.parameters.get("model", evaluated_model(request)) != evaluated_model(request):
            raise _refused("another model of this run was evaluated before")
    if request.release == "internal":
        _check_exact(study, request, past, exact_runs)


def _check_exact(
    study: Study, request: EvaluateRequest, past: Sequence[SpendEntry], exact_runs: int
) -> None:
    training_runs = {entry.run_id for entry in past if entry.partition == "train"}
    if request.run_id not in training_runs:
        raise _refused(
            "exact tables are asked for of a run in which this hospital trained no round",
            "they leave for models that its own patients had a part in",
        )
    exact = {e.run_id for e in past if e.partition == "held_out" and e.mechanism == "none"}
    if len(exact | {request.run_id}) > exact_runs:
        raise _refused(
            f"exact tables of {len(exact)} runs of this study have left already",
            "every further run reveals more of the same held-out patients",
            cure="approve the study again with a higher --exact-runs",
        )


def _refused(what: str, why: str = "", cure: str = "") -> ProtocolError:
    return ProtocolError(
        what,
        where="evaluation",
        why=why,
        cure=cure or "ask the coordinator for a study that says so, and approve that",
        code=ErrorCode.POLICY,
    )
