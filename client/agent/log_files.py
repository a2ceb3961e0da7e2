"""Locate the log files of a hospital's agent."""

from pathlib import Path

from client.site.identity import load_identity
from common.study.site_policy import SitePolicy
from common.trust.audit_log import AuditLog

AUDIT_FILE, EVENTS_FILE = "audit.jsonl", "agent.jsonl"


def audit_path(policy: SitePolicy) -> Path:
    """Return where the hospital's audit log lies: in its private folder."""
    return policy.state.parent / AUDIT_FILE


def events_path(policy: SitePolicy) -> Path:
    """Return where the agent's structured log lies: in the private folder."""
    return policy.state.parent / EVENTS_FILE


def site_audit_log(policy: SitePolicy) -> AuditLog:
    """Return the hospital's audit log, signed by its identity.

    Raises:
        ConfigError: There is no identity yet, or it is damaged.
    """
    return AuditLog(audit_path(policy), policy.site_id, load_identity(policy.identity_key))
