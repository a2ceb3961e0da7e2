"""Build one row per site: participation, last answer, privacy spent."""

from dataclasses import dataclass

from common.protocol.evaluation_request import evaluation_promise
from common.study.study import Study
from server.exchange.enrolment import reason
from server.page.run_files import RunFiles
from server.session.checkpoint import SILENT
from server.session.run_state import SiteState


@dataclass(frozen=True)
class SiteRow:
    """A site of the roster.

    Attributes:
        site_id: Its identifier.
        name: Its name, if the roster states one.
        standing: In words: takes part, answered, silent, refused and why.
        well: False when somebody should look at it.
        last_round: Last round whose sum it is in; 0 before the first.
        modalities: What it has.
        epsilon: Training epsilon that its ledger has spent in this study.
        epsilon_promised: What the study may spend; None without noise.
        evaluation_epsilon: Evaluation epsilon spent.
        evaluation_promised: What the evaluation may spend; None for exact tables.
        ledger_head: Start of the hash of its ledger's last line.
    """

    site_id: str
    name: str
    standing: str
    well: bool
    last_round: int
    modalities: tuple[str, ...]
    epsilon: float
    epsilon_promised: float | None
    evaluation_epsilon: float
    evaluation_promised: float | None
    ledger_head: str | None


def site_rows(files: RunFiles) -> list[SiteRow]:
    """Return a row for every site of the roster, or of the state while there is no study."""
    states = files.state.sites if files.state else {}
    names = {entry.site_id: entry.name for entry in files.study.sites} if files.study else {}
    return [
        _row(site_id, names.get(site_id, ""), states.get(site_id), files)
        for site_id in [*names, *sorted(set(states) - set(names))]
    ]


def evaluation_promised(study: Study) -> float | None:
    """Return what the final evaluation costs a held-out patient; None for exact tables."""
    release = study.privacy.evaluation.release
    return None if release == "internal" else evaluation_promise(study, release)[0]


def _row(site_id: str, name: str, site: SiteState | None, files: RunFiles) -> SiteRow:
    state = site or SiteState()
    rounds = [record.round for record in files.history if site_id in record.sites]
    standing, well = _standing(site_id, site, files)
    study = files.study
    private = study is not None and study.privacy.is_private
    return SiteRow(
        site_id=site_id,
        name=name,
        standing=standing,
        well=well,
        last_round=rounds[-1] if rounds else 0,
        modalities=tuple(state.modalities),
        epsilon=state.epsilon_spent,
        epsilon_promised=study.privacy.epsilon if study and private else None,
        evaluation_epsilon=state.evaluation_epsilon_spent,
        evaluation_promised=evaluation_promised(study) if study else None,
        ledger_head=state.ledger_head[:12] if state.ledger_head else None,
    )


def _standing(site_id: str, site: SiteState | None, files: RunFiles) -> tuple[str, bool]:
    """Return how a site stands, in words, and whether that is well."""
    if site is None:
        return "not asked yet", True
    if not site.enrolled:
        return f"does not take part: {reason(site.refusal_code)}", False
    last = files.history[-1] if files.history else None
    if site.online is False:
        return "offline", False
    if last is None:
        return "takes part", True
    if site_id in last.sites:
        return f"answered in round {last.round}", True
    code = last.dropped.get(site_id)
    if code == SILENT:
        return f"silent in round {last.round}", False
    if code is not None:
        return f"refused or failed in round {last.round} ({code})", False
    return "takes part from the next round on", True
