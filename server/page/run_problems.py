"""List a run's problems, present and past, and what to do about each."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from common.error_guide import guide_of
from common.page.problem import Problem, Weight
from server.exchange.enrolment import FINAL_REFUSALS, reason
from server.page.run_files import RunFiles
from server.session.checkpoint import SILENT, VOID, RoundRecord
from server.session.run_state import RunState

RECENT = 10
LATE = 3.0
"""A round that takes this many times the usual is late."""
LATE_S = 60.0
"""And at least this much longer."""

CONTINUE = "`tumorboard server resume FOLDER` continues it after the last committed round, with "
CONTINUE += "identical bytes."
ASK = "Ask the hospital whether it takes part (`tumorboard site status`) and is online."
ENDED = ("done", "failed", "stopped")
_REASON = re.compile(r"^(TB\d{3}): (.*)$", re.DOTALL)


def run_problems(files: RunFiles, *, now: datetime, pace: float | None) -> Iterator[Problem]:
    """Yield the problems of a run.

    Args:
        files: The run folder.
        now: The time.
        pace: Usual seconds of a round; None before the first.
    """
    state = files.state
    if state is None:
        return
    yield from _stopped(state, files)
    yield from _refusals(state)
    if state.phase not in ENDED:
        yield from _late(files, now, pace)
        yield from _thin(files)
    yield from _dropped(files.history[-RECENT:], over=state.phase in ENDED)
    yield from _hard_rounds(files.history[-RECENT:])
    yield from _overspent(files)


def _stopped(state: RunState, files: RunFiles) -> Iterator[Problem]:
    if state.phase == "failed":
        match = _REASON.match(state.reason or "")
        code, what = match.groups() if match else (None, state.reason or "The run failed.")
        cure = f"{guide_of(code).cure} {CONTINUE}" if code else CONTINUE
        yield Problem("stops", what, cure, code, f"round {state.round}")
    elif state.phase == "stopped":
        what = f"The run was stopped on request after round {state.round}."
        yield Problem("notes", what, CONTINUE)
    elif state.phase != "done" and files.at_work is False:
        what = "No process is running this study; it was stopped, or its machine was."
        yield Problem("stops", what, CONTINUE, where=f"round {state.round}")


def _refusals(state: RunState) -> Iterator[Problem]:
    for site_id, site in sorted(state.sites.items()):
        if site.enrolled:
            continue
        why = reason(site.refusal_code).removesuffix(f" ({site.refusal_code})")
        what = f"The site does not take part: {why}."
        if site.refusal_code is None:
            cure = (
                "Ask the hospital whether it takes part: `tumorboard site status` there. It joins "
            )
            cure += "the next round by itself."
        else:
            cure = guide_of(site.refusal_code).cure
            if site.refusal_code in FINAL_REFUSALS and not site.is_revoked:
                cure += " Then stop this run and start it again: the site is asked again."
        yield Problem("warns", what, cure, site.refusal_code, site_id)


def _late(files: RunFiles, now: datetime, pace: float | None) -> Iterator[Problem]:
    if pace is None or files.changed is None or files.at_work is False:
        return
    waiting_s = (now - files.changed).total_seconds()
    if waiting_s > max(LATE * pace, pace + LATE_S):
        what = f"Nothing was committed for {waiting_s:.0f} s; a round usually takes {pace:.0f} s."
        cure = (
            "A site is slow or offline. The round closes without it at the deadline that the study "
        )
        cure += "states (`quorum.round_timeout_s`), if enough others answered."
        yield Problem("warns", what, cure)


def _thin(files: RunFiles) -> Iterator[Problem]:
    if files.study is None or not files.history or len(files.study.sites) < 2:
        return
    minimum, last = files.study.quorum.min_sites, files.history[-1]
    if len(last.sites) == minimum < len(files.study.sites):
        what = f"Round {last.round} had {minimum} sites, the fewest that count."
        cure = "If one more is missing the run stops, and can be continued later. Bring the "
        cure += "missing sites back."
        yield Problem("warns", what, cure)


def _dropped(recent: tuple[RoundRecord, ...], *, over: bool) -> Iterator[Problem]:
    """Yield one problem per site and code; a note if the site answered since, or all is over."""
    counts = Counter((site, code) for record in recent for site, code in record.dropped.items())
    for (site_id, code), times in sorted(counts.items()):
        rounds = [r.round for r in recent if r.dropped.get(site_id) == code]
        back = site_id in recent[-1].sites
        when = f"in round {rounds[-1]}" if times == 1 else f"in {times} of the last {len(recent)} "
        when += "" if times == 1 else f"rounds, last in round {rounds[-1]}"
        weight: Weight = "notes" if back or over else "warns"
        again = " It has answered since." if back else ""
        if code == SILENT:
            yield Problem(weight, f"No answer {when}.{again}", ASK, where=site_id)
        else:
            what = f"{guide_of(code).happened} This was {when}.{again}"
            yield Problem.of_code(code, weight=weight, where=site_id, what=what)


def _hard_rounds(recent: tuple[RoundRecord, ...]) -> Iterator[Problem]:
    for record in recent:
        if record.attempts > 1:
            what = f"The round needed {record.attempts} attempts."
            cure = "Nothing; it was committed in the end. See which sites were missing."
            yield Problem("notes", what, cure, where=f"round {record.round}")
        if VOID in record.facts:
            what = f"The round is void: {record.facts[VOID]}. The model stayed as it was."
            cure = "Its budget stays spent. If it happens again, look at the sites that dropped."
            yield Problem("notes", what, cure, where=f"round {record.round}")


def _overspent(files: RunFiles) -> Iterator[Problem]:
    if files.state is None or files.study is None or not files.study.privacy.is_private:
        return
    budget = files.study.privacy.epsilon
    for site_id, site in sorted(files.state.sites.items()):
        if site.epsilon_spent > budget * 1.001:
            what = f"Its ledger says epsilon {site.epsilon_spent:.4g}; {budget:g} was promised."
            cure = "Stop the run and compare the hospital's ledger: `tumorboard audit ledger`."
            yield Problem("stops", what, cure, where=site_id)
