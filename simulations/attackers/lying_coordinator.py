"""Try to break the promises of running hospitals as a coordinator that lies.

Each attack first has a chance to succeed: the hospitals answer the same questions when they are
honestly asked, in the runs between.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.agent.socket_call import AgentRefusalError, call_agent
from client.site.site_folder import load_policy, record_consent, withdraw_consent
from common.errors import RunError, TumorboardError
from common.protocol.evaluation_request import planned_evaluation
from common.protocol.protocol import AgentApi, EvaluateRequest
from common.study.study import Study
from common.wire import arrays_digest
from server.run.rounds import RunResult
from simulations.attackers.altered_agent import LIES, AlteredAgent
from simulations.attackers.forged import handshake
from simulations.deployed.agent_processes import AgentsOnTrial, wide_consent

FRAME_MIB, COPIES = 128, 6
OWN_MODELS = 9
"""Models of the coordinator's own making: enough to recover nine features of a patient."""


@dataclass(frozen=True)
class LyingAttempt:
    """One attempt.

    Attributes:
        what: What was tried.
        succeeded: Answers that must not be given, and were.
        codes: Codes of the refusals.
        named: Who was named as a liar; empty if nobody was to be named.
    """

    what: str
    succeeded: int
    codes: frozenset[str]
    named: str = ""

    def __str__(self) -> str:
        """Return the attempt as one line."""
        named = f", named: {self.named}" if self.named else ""
        return f"{self.what}: {self.succeeded} answered, {', '.join(sorted(self.codes))}{named}"


def honest_run(trial: AgentsOnTrial, study: Study) -> LyingAttempt:
    """Ask everybody the same, as the attacks do but for one thing; count missing answers."""
    result = trial.run(study)
    missing = sum(len(trial.homes) - len(record.sites) for record in result.history)
    what = "nothing, in an honest run: missing"
    return LyingAttempt(what, missing + (not result.evaluations), frozenset())


def lies_about_the_question(trial: AgentsOnTrial, study: Study) -> Iterator[LyingAttempt]:
    """Ask one hospital the real question and all others another one, and open the sum."""
    victim = min(trial.homes)
    for what, lie in LIES.items():

        def lied_to(site_id: str, agent: AgentApi, lie: Any = lie) -> AgentApi:
            return agent if site_id == victim else AlteredAgent(agent, requests=dict([lie]))

        codes: set[str] = set()
        opened = 0
        try:
            result = trial.run(study, lied_to)
            rounds = sum(bool(record.sites) for record in result.history)
            opened = rounds if lie[0] == "train" else len(result.evaluations)
        except RunError as error:
            codes.add(str(error.code))
        yield LyingAttempt(f"all but one are asked {what}", opened, frozenset(codes))


def questions_of_its_own(trial: AgentsOnTrial, study: Study) -> Iterator[LyingAttempt]:
    """Ask about models, labels, rounds and cuts that the study does not imply."""
    result = trial.run(study)
    agent = trial.agents[min(trial.homes)]
    release = study.privacy.evaluation.release
    real = {"arrays": result.arrays, "model_digest": result.model_digest}
    for request in planned_evaluation(study, result.run_id, release):
        tries = [request.model_copy(update=own) for own in _own_models(result)]
        tries += [
            request.model_copy(update=own | {"label": "start"}) for own in _own_models(result)
        ]
        tries += [request.model_copy(update=real | {"round": 1})]
        cuts = {"score_cuts": {"response": list(range(1, 16))}, "phase": "tables"}
        tries += [request.model_copy(update=real | cuts)]
        tries += [request.model_copy(update=real | {"run_id": "run-of-nobody"})]
        yield _asked(f"{len(tries)} questions of its own, {request.phase}, {release}", agent, tries)


def more_exact_tables(trial: AgentsOnTrial, study: Study) -> LyingAttempt:
    """Ask for exact tables in one run more than consents say (one)."""
    codes: set[str] = set()
    opened = 0
    try:
        opened = len(trial.run(study).evaluations)
    except RunError as error:
        codes.add(str(error.code))
    return LyingAttempt("exact tables in a second run", opened, frozenset(codes))


def evaluation_beyond_consent(trial: AgentsOnTrial, study: Study) -> LyingAttempt:
    """Run a study whose evaluation costs more than one hospital consented to."""
    site_id = min(trial.homes)
    policy = load_policy(trial.homes[site_id])
    digest = study.digest()
    withdraw_consent(policy, digest)
    record_consent(policy, wide_consent(policy, study, evaluation=0.5))
    try:
        result = trial.run(study)
        code = result.sites[site_id].refusal_code
        answered = int(code is None)
    except RunError as error:
        code, answered = str(error.code), 0
    finally:
        withdraw_consent(policy, digest)
        record_consent(policy, wide_consent(policy, study))
    what = "an evaluation of more epsilon than one hospital consented to"
    return LyingAttempt(what, answered, frozenset({str(code)}))


def patients_in_the_handshake(trial: AgentsOnTrial, study: Study) -> LyingAttempt:
    """Compare the handshakes of a hospital with all its patients and with one alone."""
    site_id = min(trial.homes)
    manifest = load_policy(trial.homes[site_id]).manifest
    rows = manifest.read_text(encoding="utf-8")
    replies = set()
    for number, text in enumerate((rows, "\n".join(rows.splitlines()[:2]) + "\n")):
        manifest.write_text(text, encoding="utf-8")
        trial.start(site_id)
        reply = trial.agents[site_id].handshake(handshake(study, f"n-{number}"))
        replies.add((reply.accepted, *reply.encode()))
    manifest.write_text(rows, encoding="utf-8")
    trial.start(site_id)
    what = "the handshake is asked how many patients there are"
    refused = sum(not accepted for accepted, *_ in replies)
    return LyingAttempt(what, len(replies) - 1 + refused, frozenset())


def large_frames(trial: AgentsOnTrial) -> LyingAttempt:
    """Send one agent eight large frames at once; it may hold one, in its few copies."""
    socket, process = trial.process_of(min(trial.homes))
    before = _peak_mib(process)
    payload = bytes(FRAME_MIB << 20)
    codes = set()

    def send(_: int) -> str:
        try:
            call_agent(socket, "train", "{}", payload, timeout_s=300)
        except AgentRefusalError as refusal:
            return refusal.code
        return "answered"

    with ThreadPoolExecutor(8) as threads:
        codes |= set(threads.map(send, range(8)))
    frames = (_peak_mib(process) - before) / FRAME_MIB
    what = f"eight frames of {FRAME_MIB} MiB at once"
    return LyingAttempt(what, max(math.ceil(frames) - COPIES, 0), frozenset(codes))


def _peak_mib(process: int) -> float:
    """Return the most memory that a process has held, MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _own_models(result: RunResult) -> list[dict[str, object]]:
    """Return models that turn features into scores."""
    models: list[dict[str, object]] = []
    for seed in range(OWN_MODELS):
        rng = np.random.default_rng(seed)
        arrays = {n: rng.normal(size=a.shape).astype("f4") for n, a in result.arrays.items()}
        models.append({"arrays": arrays, "model_digest": arrays_digest(arrays)})
    return models


def _asked(what: str, agent: AgentApi, requests: Sequence[EvaluateRequest]) -> LyingAttempt:
    codes: set[str] = set()
    answered = 0
    for request in requests:
        try:
            agent.evaluate(request)
            answered += 1
        except (AgentRefusalError, TumorboardError) as refusal:
            codes.add(str(refusal.code))
    return LyingAttempt(what, answered, frozenset(codes))
