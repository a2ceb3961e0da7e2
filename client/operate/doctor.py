"""Run the hospital's preflight: every check with its finding and how to fix it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from client.agent.log_files import audit_path
from client.operate.doctor_connection import connection_checks
from client.site.enrol_request import public_keys
from client.site.identity import node_key_path
from client.site.site_disks import CHECK, full_disks, tried_disks
from client.site.site_folder import load_policy
from client.training.device import choose_device
from common.commands.doctor import Check, Finding, check_machine, check_secrets, examine
from common.errors import ErrorCode
from common.ledger.ledger_file import read_ledger
from common.study.site_policy import SitePolicy
from common.trust.audit_log import read_audit
from common.trust.provenance import source_digests


def examine_site(site: Path, socket: Path | None = None) -> list[Finding]:
    """Return what is in order and what is not at a hospital.

    Args:
        site: `site.yaml`, or the folder that holds it.
        socket: The agent's socket; `private/agent.sock` by default.

    Raises:
        ConfigError: There is no hospital in the folder, or its policy is wrong.
    """
    policy = load_policy(site)
    where = socket or policy.state.parent / "agent.sock"
    checks: list[tuple[str, Check]] = [
        *check_machine(policy.state, not_before=_installed_at),
        (CHECK, lambda: _room(policy, where)),
        ("device", lambda: _device(policy)),
        ("policy", lambda: _policy(policy)),
        ("data", lambda: _data(policy)),
        ("keys", lambda: _keys(policy)),
        ("permissions", lambda: check_secrets(_secrets(policy))),
        ("ledger", lambda: _ledger(policy)),
        ("audit log", lambda: _audit(policy)),
        *connection_checks(site, policy, where),
    ]
    return examine(checks)


def _installed_at() -> float:
    """Return when the newest of our files was written, s since 1970."""
    root = Path(__file__).resolve().parents[2]
    return max((root / name).stat().st_mtime for name, _ in source_digests("common"))


def _room(policy: SitePolicy, socket: Path) -> Iterator[Finding]:
    problems = [*tried_disks(policy)] or [*full_disks(policy, socket)]
    for finding in problems:
        yield replace(finding, found=f"[{ErrorCode.DISK_FULL}] {finding.found}")
    if not problems:
        yield Finding(CHECK, "ok", "all that the agent writes can be written")


def _device(policy: SitePolicy) -> Iterator[Finding]:
    if policy.device == "cpu":
        yield Finding("device", "ok", "CPU, as site.yaml says")
        return
    device = choose_device(policy.device).type
    if device == "cpu":
        cure = "set device: cpu to say so, or install a CUDA build of torch and its driver"
        yield Finding("device", "warning", "no GPU is visible; the CPU is used", cure)
    else:
        yield Finding("device", "ok", device)


def _policy(policy: SitePolicy) -> Iterator[Finding]:
    if "none" in policy.allowed_modes:
        cure = "take 'none' out of allowed_modes in site.yaml unless all data is synthetic"
        yield Finding("policy", "warning", "updates without any privacy are allowed", cure)
    if policy.allow_internal_evaluation:
        cure = "set allow_internal_evaluation: false, unless this was decided"
        yield Finding("policy", "warning", "exact evaluation tables may leave", cure)
    if not policy.approvals:
        cure = "`tumorboard site approve` after reading the study"
        yield Finding("policy", "warning", "no study is approved yet", cure)
    for approval in policy.approvals:
        if approval.epsilon_ceiling > policy.lifetime_epsilon:
            message = f"study {approval.study_digest[:12]} may spend more than lifetime_epsilon"
            yield Finding("policy", "warning", message, "approve it again with a lower --epsilon")
    message = f"{len(policy.approvals)} approved studies, modes {', '.join(policy.allowed_modes)}"
    yield Finding("policy", "ok", message)


def _data(policy: SitePolicy) -> Iterator[Finding]:
    paths = {
        "manifest": (policy.manifest, "write it, then `tumorboard site check`"),
        "feature_store": (policy.feature_store, "`tumorboard site extract` makes it"),
    }
    wrong = 0
    for key, (path, cure) in paths.items():
        if not path.exists():
            yield Finding("data", "problem", f"{key}: {path} does not exist", cure)
        elif not os.access(path, os.R_OK):
            cure = "run as the account that may read patients, or ask for permission"
            yield Finding("data", "problem", f"{key}: {path} cannot be read", cure)
        elif _everybody_reads(path):
            message = f"{key}: every account of this machine may read {path}"
            yield Finding("data", "warning", message, f"chmod -R o-rwx {path}")
        else:
            continue
        wrong += 1
    private = policy.state.parent
    if private.exists() and not os.access(private, os.W_OK | os.X_OK):
        wrong += 1
        cure = "run as the account that owns it"
        yield Finding("data", "problem", f"{private} cannot be written", cure)
    if not wrong:
        yield Finding("data", "ok", "manifest, feature store and private folder can be used")


def _everybody_reads(path: Path) -> bool:
    around = [folder.stat().st_mode & 0o001 for folder in path.resolve().parents]
    return bool(path.stat().st_mode & 0o004) and all(around)


def _keys(policy: SitePolicy) -> Iterator[Finding]:
    keys = public_keys(policy)
    yield Finding("keys", "ok", f"identity {keys.identity[:12]} and node key")


def _secrets(policy: SitePolicy) -> list[Path]:
    files = [policy.identity_key, node_key_path(policy.identity_key), policy.split_key_file]
    folders = {policy.identity_key.parent, policy.state.parent}
    return [path for path in (*sorted(folders), *files) if path.exists()]


def _ledger(policy: SitePolicy) -> Iterator[Finding]:
    if not policy.ledger.exists():
        yield Finding("ledger", "ok", "nothing was spent yet")
        return
    yield Finding("ledger", "ok", f"{len(read_ledger(policy.ledger))} lines, chain whole")


def _audit(policy: SitePolicy) -> Iterator[Finding]:
    path = audit_path(policy)
    if not path.exists():
        yield Finding("audit log", "ok", "nothing was asked yet")
        return
    records = read_audit(path, public_keys(policy).identity)
    yield Finding("audit log", "ok", f"{len(records)} lines, chain and signatures whole")
