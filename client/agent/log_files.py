"""Where a hospital's agent writes its logs."""

from __future__ import annotations

from pathlib import Path

from common.site_policy import SitePolicy

AUDIT_FILE, EVENTS_FILE = "audit.jsonl", "agent.jsonl"


def audit_path(policy: SitePolicy) -> Path:
    """Return where the hospital's audit log lies: in its private folder."""
    return policy.state.parent / AUDIT_FILE


def events_path(policy: SitePolicy) -> Path:
    """Return where the agent's structured log lies: in the private folder."""
    return policy.state.parent / EVENTS_FILE
