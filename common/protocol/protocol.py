"""Define the messages between server and site agent.

`AgentApi` is the whole surface of a hospital. In simulation the server's messages reach the
agent object directly; in deployment they pass Flower, a relay and a Unix socket, unchanged.
"""

from typing import Literal, Protocol, get_type_hints

from pydantic import Field, JsonValue

from common.cohort.cohort_counts import CohortCounts
from common.privacy.plan import Phase, Release
from common.secure_sum import messages
from common.secure_sum.ledger_mark import LedgerMark
from common.study.modalities import Modality
from common.study.study import Identifier, Task
from common.trust.site_proof import CHALLENGE
from common.wire import Arrays, WireMessage, part_of

PROTOCOL_VERSION = 2
"""Goes up when a message gains, loses or changes a field; both sides must speak the same."""

Hex64 = str


class HandshakeRequest(WireMessage):
    """Opens a run: the study travels whole and is checked against the approved digest."""

    protocol_version: int = PROTOCOL_VERSION
    run_id: Identifier
    study_json: str
    study_digest: Hex64
    code_digest: Hex64
    ledger_head: Hex64 | None = Field(
        default=None, description="head this site last sent the server; an older ledger refuses"
    )
    roster_json: str | None = Field(
        default=None,
        description="the coordinator's signed roster; None without a provisioned consortium",
    )


class HandshakeReply(WireMessage):
    """The site agrees, or refuses with a stable code."""

    site_id: Identifier
    accepted: bool
    refusal_code: str | None = None
    code_digest: Hex64
    study_digest: Hex64
    modalities: list[Modality] = Field(default_factory=list)
    release: Release = Field(
        default="dp", description="how this site lets evaluation tables leave in this study"
    )
    ledger_head: Hex64 | None = None


class TrainRequest(WireMessage):
    """One round of training.

    `arrays` holds the global model and, in a study with control variates, the server's as
    `control/<parameter>`.
    """

    run_id: Identifier
    round: int = Field(ge=1)
    model_digest: Hex64 = Field(description="digest of all arrays")
    counted: dict[str, int] = Field(
        default_factory=dict,
        description="site -> last round in which its update counted; control variates only",
    )


class TrainReply(WireMessage):
    """One site's contribution.

    `arrays` holds, by `kind`: `delta` the float change of every trained parameter;
    `gradient_sum` the (noised) sum of clipped per-patient gradients; `masked` the upload of a
    secure sum (`common.secure_sum.messages`). `weights` (mode none only) gives the number of
    training patients behind each block; in private modes it is empty and public nominal counts
    are used.
    """

    site_id: Identifier
    run_id: Identifier
    round: int
    model_digest: Hex64
    kind: Literal["delta", "gradient_sum", "masked"]
    weights: dict[str, float] = Field(default_factory=dict)
    loss: float | None = Field(default=None, description="mean training loss; mode none only")
    blocks: list[str] = Field(default_factory=list, description="blocks this site contributes to")
    steps: int | None = Field(
        default=None, ge=1, description="optimiser steps behind a delta; control variates only"
    )
    session: int | None = Field(default=None, description="key agreement that masks the upload")
    ledger_mark: LedgerMark | None = Field(default=None, description="masked uploads only")
    ledger_head: Hex64 | None = None
    epsilon_spent: float = 0.0


class EvaluateRequest(WireMessage):
    """Asks for mergeable tables of the held-out patients; `arrays` holds the model."""

    run_id: Identifier
    round: int = Field(ge=0, description="0 = final model")
    model_digest: Hex64
    label: str = Field(default="federated", pattern=r"^[a-z_]{1,48}$")
    release: Release = Field(default="dp", description="never looser than the study's")
    phase: Phase = Field(
        default="tables",
        description="margins: score and censoring margins that refine the grid; paired: the joint "
        "table of two models, the second one's arrays named `second/...`; exact release only",
    )
    second_cuts: dict[Task, list[float]] | None = Field(
        default=None, description="cuts for the scores of the second model; phase paired only"
    )
    score_cuts: dict[Task, list[float]] | None = Field(
        default=None, description="cuts from the merged margins; None: the study's defaults"
    )
    censoring: list[float] | None = Field(
        default=None, description="censoring curve at the grid's time edges, for Brier scores"
    )
    risk_threshold: float | None = Field(
        default=None, description="risk score from which a patient is in the high-risk group"
    )
    sum_round: int | None = Field(
        default=None, ge=1, description="number of the secure sum that takes the tables"
    )
    personal: bool = Field(
        default=False, description="evaluate each site's own model instead; mode none only"
    )


class EvaluateReply(WireMessage):
    """Mergeable tables of one site; int64 `arrays` named by common.metrics.tables.tables.

    In answer to a request with `sum_round`, `arrays` hold the upload of a secure sum instead.
    """

    site_id: Identifier
    run_id: Identifier
    round: int
    model_digest: Hex64
    label: str
    release: Release
    phase: Phase = "tables"
    session: int | None = Field(default=None, description="key agreement that masks the upload")
    ledger_mark: LedgerMark | None = Field(default=None, description="masked uploads only")
    cohort: CohortCounts | None = Field(
        default=None, description="data funnel of the site; release internal only"
    )
    ledger_head: Hex64 | None = None
    epsilon_spent: float = Field(default=0.0, description="training epsilon of this study so far")
    evaluation_epsilon_spent: float = 0.0


class StatusRequest(WireMessage):
    """Asks what the site is doing, and for a proof that it is the site."""

    run_id: Identifier | None = None
    challenge: Hex64 | None = Field(
        default=None, pattern=CHALLENGE, description="random, never used before"
    )


class StatusReply(WireMessage):
    """State of the agent, without any patient statistic."""

    site_id: Identifier
    state: Literal["idle", "training", "evaluating"]
    run_id: Identifier | None = None
    round: int | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    proof: str | None = Field(
        default=None, description="signature of the challenge by the registered identity"
    )


class AgentApi(Protocol):
    """Every call a hospital answers: `name(request) -> reply`, and nothing else.

    Refusals are `TumorboardError`s; only codes travel.
    """

    def handshake(self, request: HandshakeRequest) -> HandshakeReply:
        """Check study, code, policy and cohort; prepare the run."""
        ...

    def train(self, request: TrainRequest) -> TrainReply:
        """Reserve the spend, compute one round, commit, reply."""
        ...

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Return mergeable tables of the held-out patients."""
        ...

    def status(self, request: StatusRequest) -> StatusReply:
        """Return what the agent is doing."""
        ...

    def advertise_keys(self, request: messages.AdvertiseRequest) -> messages.AdvertiseReply:
        """Return signed public keys for the secure sums of a run."""
        ...

    def agree_keys(self, request: messages.AgreeKeysRequest) -> messages.AgreeKeysReply:
        """Check everybody's signed keys and derive the secrets of the secure sums."""
        ...

    def unmask(self, request: messages.UnmaskRequest) -> messages.UnmaskReply:
        """Help to open one sum over the named survivors, or refuse."""
        ...


CONTROL = "control/"
"""Prefix of the server's control variates among the arrays of a training request."""


def model_part(arrays: Arrays) -> Arrays:
    """Return the arrays of a training request that are the model."""
    return {name: value for name, value in arrays.items() if not name.startswith(CONTROL)}


def control_part(arrays: Arrays) -> Arrays:
    """Return the control variates of a training request, by parameter."""
    return part_of(arrays, CONTROL)


METHODS: dict[str, tuple[type[WireMessage], type[WireMessage]]] = {
    name: (types["request"], types["return"])
    for name, method in vars(AgentApi).items()
    if not name.startswith("_") and (types := get_type_hints(method))
}
"""Method name -> (request, reply), as `AgentApi` declares them; anything else is refused."""
