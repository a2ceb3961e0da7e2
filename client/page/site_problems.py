"""List the problems a hospital should look at, and what to do about each."""

from collections.abc import Iterator

from client.page.site_files import SiteFiles
from common.errors import ErrorCode
from common.page.audit_tail import refusals
from common.page.problem import Problem
from common.page.processes import process_problems

NEARLY_SPENT = 0.9


def site_problems(files: SiteFiles) -> Iterator[Problem]:
    """Yield the problems of a hospital."""
    if files.policy is None:
        return
    if files.agent is None:
        what = "The site agent does not answer, so this hospital takes part in nothing."
        cure = f"`tumorboard site join --site {files.folder}` starts agent, SuperNode and relay."
        yield Problem("warns", what, cure)
    elif files.processes is None and files.connection is not None:
        what = "SuperNode and relay are not running, so this hospital takes part in nothing."
        cure = f"`tumorboard site join --site {files.folder}`."
        yield Problem("warns", what, cure)
    yield from process_problems(files.processes or ())
    for finding in files.disks:
        what, cure = (f"{text[:1].upper()}{text[1:]}." for text in (finding.found, finding.cure))
        yield Problem("warns", what, cure, str(ErrorCode.DISK_FULL))
    if not files.policy.approvals:
        what = "This hospital has consented to no study."
        cure = "Read the study, then `tumorboard site approve`."
        yield Problem("notes", what, cure)
    yield from _orphans(files)
    yield from _open(files)
    yield from _nearly_spent(files)
    yield from refusals(files.audit)


def _orphans(files: SiteFiles) -> Iterator[Problem]:
    """Runs that were accepted, of studies whose consent is gone."""
    for run, digest in sorted(files.runs.items()):
        if files.policy is not None and files.policy.approval_of(digest) is None:
            what = "The run is of a study this hospital no longer consents to; it is refused."
            cure = "Nothing, if the consent was withdrawn; otherwise `tumorboard site approve`."
            yield Problem("notes", what, cure, "TB503", run)


def _open(files: SiteFiles) -> Iterator[Problem]:
    """Reservations without a stored reply, unless the agent is at work on one."""
    view, agent = files.ledger.view, files.agent
    for reservation in view.open if view else []:
        entry = reservation.entry
        at_work = agent is not None and (agent.run_id, agent.round) == (entry.run_id, entry.round)
        if not at_work:
            what = f"Budget is reserved for {entry.purpose} of round {entry.round}, and no reply "
            what += "was stored: the agent stopped in between. It counts as spent."
            cure = "Nothing, if the run continues: the agent resumes it. If it was certainly "
            cure += f"never computed: `tumorboard site ledger release {reservation.sequence + 1}`."
            yield Problem("notes", what, cure, where=entry.run_id)


def _nearly_spent(files: SiteFiles) -> Iterator[Problem]:
    policy, view = files.policy, files.ledger.view
    if policy is None or view is None:
        return
    for account in view.accounts:
        if account.study_digest is not None or account.left is None:
            continue
        training = account.partition == "train"
        ceiling = policy.lifetime_epsilon if training else policy.lifetime_evaluation_epsilon
        spent = account.epsilon if training else ceiling - account.left
        if spent >= NEARLY_SPENT * ceiling:
            whose = "training" if training else "held-out"
            what = f"Epsilon {spent:.3g} of {ceiling:g} for life is spent for {whose} patients."
            cure = "A spent budget is not restored. Further studies need a higher ceiling in "
            cure += "site.yaml, which is this hospital's own decision."
            yield Problem("warns", what, cure, "TB410")
