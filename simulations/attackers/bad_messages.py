"""Send a malicious coordinator's messages over the real link, and altered rosters."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.operate.site_processes import SitePaths
from client.site.enrol_connection import SiteConnection
from client.site.enrol_request import public_keys
from client.site.site_folder import load_policy
from common.contract import sha256_hex
from common.errors import ConfigError, ErrorCode
from common.study.study import Study
from server.consortium.provision_kit import write_kit
from server.flower.bundle import bundle_digest
from server.flower.flower_commands import registered_nodes
from server.flower.flower_internals import build_bundle
from server.operate.run_folder import RunFolder
from simulations.attackers.attempts import NO_COORDINATOR, NO_HOSPITAL, Attempt, AuditWatch
from simulations.attackers.bad_coordinator import ANSWERED, run_bad, write_bundle
from simulations.attackers.chaos_scenes import Stage

DEMANDS: dict[str, str] = {
    "roster altered on the line": ErrorCode.ROSTER,
    "altered study under the approved digest": ErrorCode.STUDY_DIGEST,
    "study nobody approved": ErrorCode.NOT_APPROVED,
    "other code": ErrorCode.CODE_DIGEST,
    "head of another ledger": ErrorCode.LEDGER_ROLLBACK,
    "query that does not exist": ErrorCode.PROTOCOL,
    "query for the shell": ErrorCode.PROTOCOL,
    "run nobody opened": ErrorCode.PROTOCOL,
    "round beyond the plan": ErrorCode.PROTOCOL,
    "model that is not its digest's": ErrorCode.PAYLOAD,
    "model of NaN": ErrorCode.NOT_FINITE,
    "truncated message": ErrorCode.PAYLOAD,
    "keys for another study": ErrorCode.STUDY_DIGEST,
    "first round, other model": ErrorCode.ALREADY_SPENT,
    "exact tables": ErrorCode.POLICY,
}
"""What is requested -> code with which hospitals refuse it."""

STARTED = "control_called"


def bad_bundles(stage: Stage, run: RunFolder, private: Study) -> Iterator[Attempt]:
    """Yield a bundle with code, and all that a bundle without code asks for.

    Hospitals have allowed the digest of the first, and all but the last that of the second.
    """
    folder = stage.consortium.folder
    marker = stage.root / "code-ran"
    study = stage.root / "private-study.json"
    study.write_text(private.model_dump_json(), "utf-8")
    state = run.state()
    nodes = _nodes(stage)
    config = {"study": str(run.study_file), "private": str(study)}
    config["roster"] = str(folder.roster_file)
    config |= {"run": "", "nodes": ",".join(nodes.values())}
    code = str(ErrorCode.BUNDLE)
    watch = AuditWatch.of_coordinator(folder)
    bundle = write_bundle(stage.root / "bad-code", marker)
    with _allowed(stage, bundle, list(nodes)):
        answers = run_bad(folder, bundle, config)
    codes = {each for replies in answers.values() for each in replies.values()}
    codes |= {"its code ran"} if marker.exists() else set()
    at_sites = all("it holds code" in _relay_log(stage, site) for site in nodes)
    start_records = watch.where(STARTED, path="/v1/control/start-run")
    where = "relay.log of each" if at_sites else ""
    yield Attempt("bundle with code, its digest allowed", code, codes, start_records, where)
    yield from _without_code(stage, config | {"run": state.run_id if state else ""}, nodes)


def _without_code(stage: Stage, config: dict[str, str], nodes: dict[str, str]) -> Iterator[Attempt]:
    folder = stage.consortium.folder
    bundle = write_bundle(stage.root / "bad-plain", None)
    *allowing, strict = nodes
    watches = {site: AuditWatch.of_site(stage.consortium.sites[site]) for site in allowing}
    watch = AuditWatch.of_coordinator(folder)
    with _allowed(stage, bundle, allowing):
        answers = run_bad(folder, bundle, config)
    start_records = watch.where(STARTED, path="/v1/control/start-run")
    refusals = {replies[nodes[strict]] for replies in answers.values()}
    where = "relay.log" if "is not allowed here" in _relay_log(stage, strict) else ""
    gate = str(ErrorCode.BUNDLE)
    yield Attempt("bundle whose digest is not allowed", gate, refusals, start_records, where)
    for what, code in DEMANDS.items():
        codes = {answers[what][nodes[site]] for site in allowing}
        is_logged = all(_logged(watch, str(code)) for watch in watches.values())
        where = f"audit log of each, call {code}" if is_logged else ""
        yield Attempt(what, str(code), codes, start_records, where)
    twice = [
        (answers["first round, private study"][nodes[s]], answers["first round again"][nodes[s]])
        for s in allowing
    ]
    same = all(first == again and first.startswith(ANSWERED) for first, again in twice)
    yield Attempt(
        "request of a round again: the stored reply, nothing new",
        "the same bytes",
        {"the same bytes" if same else str(twice)},
        start_records,
        "audit log of each, call" if all(_logged(w, "") for w in watches.values()) else "",
    )


def altered_rosters(stage: Stage) -> Iterator[Attempt]:
    """Yield a kit whose roster was altered on its way, and the coordinator's own, altered."""
    site_id, home = next(iter(stage.consortium.sites.items()))
    folder = stage.consortium.folder
    kit = SiteConnection(stage.root / "altered-kit")
    write_kit(folder, site_id, kit.root, bundle_digest=bundle_digest())
    kit.roster_file.write_text(_promoted(kit.roster_file), "utf-8")
    code = str(ErrorCode.ROSTER)
    watch, message = AuditWatch.of_site(home), ""
    try:
        stage.consortium.command(
            *("site", "install-kit", "--site", str(home), "--kit", str(kit.root))
        )
    except ConfigError as error:
        message = error.why
    codes = {code if code in message else "installed"}
    where = watch.where("kit_refused", code)
    yield Attempt("kit with an altered roster", code, codes, NO_COORDINATOR, where)
    own = folder.roster_file.read_text("utf-8")
    watcher = AuditWatch.of_coordinator(folder)
    try:
        folder.roster_file.write_text(_promoted(folder.roster_file), "utf-8")
        where = watcher.where("roster_refused", code)
    finally:
        folder.roster_file.write_text(own, "utf-8")
    codes = {code if where else "taken"}
    yield Attempt("roster altered at the coordinator", code, codes, where, NO_HOSPITAL)


def _promoted(roster: Path) -> str:
    """Return a signed roster in which everybody ever revoked is admitted again, and newer."""
    fields = json.loads(roster.read_text("utf-8"))
    fields["roster"]["version"] += 1
    for member in fields["roster"]["members"]:
        member["status"] = "admitted"
    return json.dumps(fields)


def _logged(watch: AuditWatch, code: str) -> bool:
    return bool(watch.added(lambda record: record.event == "call" and record.code == code))


def _nodes(stage: Stage) -> dict[str, str]:
    nodes = registered_nodes(stage.consortium.folder)
    sites = stage.consortium.sites.items()
    return {site: nodes[public_keys(load_policy(home)).node_key] for site, home in sites}


def _relay_log(stage: Stage, site_id: str) -> str:
    log = SitePaths.of(stage.consortium.sites[site_id]).log / "relay.log"
    return log.read_text("utf-8", "replace") if log.exists() else ""


@contextmanager
def _allowed(stage: Stage, bundle: Path, sites: list[str]) -> Iterator[None]:
    """Have hospitals allow the digest of a bundle while the block runs."""
    digest = sha256_hex(build_bundle(bundle))
    files = [SiteConnection.of_site(stage.consortium.sites[s]).allowed_bundles for s in sites]
    before = [file.read_text("ascii") for file in files]
    for file, text in zip(files, before, strict=True):
        file.write_text(f"{text}{digest}\n", "ascii")
    try:
        yield
    finally:
        for file, text in zip(files, before, strict=True):
            file.write_text(text, "ascii")
