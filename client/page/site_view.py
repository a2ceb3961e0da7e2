"""View of a hospital's page: agent, consents, budget and what was sent out; no patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from client.page.site_files import SiteFiles
from client.page.site_problems import site_problems
from client.site.ledger_view import Account
from common.ledger.ledger_entry import PARTITIONS, LedgerRecord, Partition, SpendEntry
from common.page.application import Content
from common.page.problem import Problem, by_weight
from common.study.site_policy import SitePolicy
from common.study.study import Study

FOR_LIFE = "this hospital, for life"
PATIENTS: dict[Partition, str] = {
    "train": "training",
    "held_out": "held out",
    "validation": "validation",
}


@dataclass(frozen=True)
class BudgetRow:
    """One ceiling and what was spent under it.

    Attributes:
        scope: The hospital's life, or a study.
        patients: Whose privacy: training or held-out patients.
        spent: Epsilon.
        ceiling: Epsilon; None where there is no own ceiling.
        releases: Noised releases.
        exact: Releases without noise.
    """

    scope: str
    patients: str
    spent: float
    ceiling: float | None
    releases: int
    exact: int


def budget_rows(files: SiteFiles) -> list[BudgetRow]:
    """Return a row for each ceiling; those for life are there before anything is spent."""
    if files.policy is None:
        return []
    policy, view = files.policy, files.ledger.view
    account_of = {(a.study_digest, a.partition): a for a in view.accounts} if view else {}
    ceilings: dict[Partition, float] = {
        "train": policy.lifetime_epsilon,
        "held_out": policy.lifetime_evaluation_epsilon,
    }
    keys: set[tuple[str | None, Partition]] = {*account_of, *((None, p) for p in ceilings)}
    return [
        _budget(account_of[key], policy, files.studies)
        if key in account_of
        else BudgetRow(FOR_LIFE, PATIENTS[key[1]], 0.0, ceilings[key[1]], 0, 0)
        for key in sorted(keys, key=lambda key: (key[0] or "", PARTITIONS.index(key[1])))
    ]


def _budget(account: Account, policy: SitePolicy, studies: Mapping[str, Study]) -> BudgetRow:
    training = account.partition == "train"
    spent, ceiling = account.epsilon, None
    if account.study_digest is None:
        ceiling = policy.lifetime_epsilon if training else policy.lifetime_evaluation_epsilon
        if not training and account.left is not None:  # these patients pay in pure epsilon
            spent = ceiling - account.left
    elif (approval := policy.approval_of(account.study_digest)) is not None:
        ceiling = approval.epsilon_ceiling if training else approval.evaluation_epsilon_ceiling
    return BudgetRow(
        scope=_scope(account.study_digest, studies),
        patients=PATIENTS.get(account.partition, account.partition),
        spent=spent,
        ceiling=ceiling,
        releases=account.releases,
        exact=account.exact,
    )


def _scope(digest: str | None, studies: Mapping[str, Study]) -> str:
    if digest is None:
        return FOR_LIFE
    study = studies.get(digest)
    return f"study {study.study_id}" if study else f"study {digest[:12]}"


SHOWN_LINES = 15
DISCLAIMER = (
    "Research software for decision support, not a medical device. This page shows nothing about "
    "patients."
)
ACTIVITIES = {"idle": "waiting", "training": "training", "evaluating": "evaluating"}
MECHANISMS = {
    "none": "exact, without noise",
    "gaussian": "Gaussian noise",
    "skellam": "Skellam noise",
    "geometric": "geometric noise",
}


@dataclass(frozen=True)
class ConsentRow:
    """A study this hospital consented to."""

    digest: str
    name: str
    mode: str
    ceiling: float
    fallback_ceiling: float | None
    runs: tuple[str, ...]


@dataclass(frozen=True)
class LineRow:
    """One line of the ledger, in words."""

    line: int
    time: datetime
    what: str
    run: str
    mechanism: str


@dataclass(frozen=True)
class SiteView:
    """Everything the template draws."""

    files: SiteFiles
    problems: list[Problem]
    budgets: list[BudgetRow]
    consents: list[ConsentRow]
    lines: list[LineRow]
    disclaimer: str = DISCLAIMER

    @property
    def title(self) -> str:
        """The hospital."""
        return self.files.policy.site_id if self.files.policy else str(self.files.folder)

    @property
    def agent(self) -> str:
        """What the agent is doing, in words."""
        if self.files.agent is None:
            return "not running"
        return ACTIVITIES.get(self.files.agent.state, self.files.agent.state)

    @property
    def synthetic(self) -> bool:
        """Whether all known studies are of synthetic patients."""
        studies = self.files.studies.values()
        return bool(studies) and all(study.synthetic for study in studies)

    @property
    def announcement(self) -> str:
        """The page in one sentence."""
        agent = self.files.agent
        doing = f", round {agent.round}" if agent is not None and agent.round else ""
        serious = sum(problem.weight != "notes" for problem in self.problems)
        trouble = f", {serious} problem{'s' if serious > 1 else ''}" if serious else ""
        return f"Agent {self.agent}{doing}{trouble}."

    @property
    def urgent(self) -> str:
        """What a reader wants to hear of at once: the agent coming or going, a new problem."""
        serious = [p.kind for p in self.problems if p.weight != "notes"]
        return " | ".join([str(self.files.agent is None), *serious])


def view_site(files: SiteFiles) -> SiteView:
    """Return the view of a hospital."""
    return SiteView(
        files=files,
        problems=by_weight([*site_problems(files), *files.problems]),
        budgets=budget_rows(files),
        consents=_consents(files),
        lines=[_line(record, files) for record in files.ledger.records[: -SHOWN_LINES - 1 : -1]],
    )


def content_of(view: SiteView) -> Content:
    """Return the view as a page serves it."""
    agent = view.files.agent
    head = view.files.ledger.view
    plain: Mapping[str, Any] = {
        "site_id": view.files.policy.site_id if view.files.policy else None,
        "agent": agent.model_dump(mode="json") if agent else None,
        "processes": [vars(row) for row in view.files.processes or ()],
        "ledger_head": head.head if head else None,
        "budgets": [vars(row) for row in view.budgets],
        "consents": [vars(row) for row in view.consents],
        "problems": [vars(problem) for problem in view.problems],
    }
    return Content(
        f"{view.title} · agent {view.agent}", view.announcement, view.urgent, view, plain
    )


def _consents(files: SiteFiles) -> list[ConsentRow]:
    if files.policy is None:
        return []
    rows = []
    for approval in files.policy.approvals:
        study = files.studies.get(approval.study_digest)
        runs = [run for run, digest in files.runs.items() if digest == approval.study_digest]
        rows.append(
            ConsentRow(
                digest=approval.study_digest,
                name=(study.title or study.study_id) if study else "no run yet",
                mode=study.privacy.mode if study else "–",
                ceiling=approval.epsilon_ceiling,
                fallback_ceiling=approval.fallback_epsilon_ceiling,
                runs=tuple(sorted(runs)),
            )
        )
    return rows


def _line(record: LedgerRecord, files: SiteFiles) -> LineRow:
    entry = record.entry
    if entry is None and record.reservation is not None:
        entry = files.ledger.records[record.reservation].entry
    return LineRow(
        line=record.sequence + 1,
        time=datetime.fromisoformat(record.time),
        what=_in_words(record, entry),
        run=entry.run_id if entry else "",
        mechanism=MECHANISMS[entry.mechanism] if entry else "",
    )


def _in_words(record: LedgerRecord, entry: SpendEntry | None) -> str:
    if entry is not None:
        what = "training" if entry.purpose == "train" else entry.purpose
        place = f"{what}, round {entry.round}" if entry.round else what
        return f"reserved: {place}" if record.kind == "reserve" else f"stored: {place}"
    if record.kind == "administrator" and record.administrator is not None:
        return f"{record.administrator.action} by {record.administrator.by}"
    return {"genesis": "ledger begun", "recovered": record.note or "recovered"}.get(
        record.kind, record.kind
    )
