"""Kinds of extractors a study may name; the code behind them lies with the hospitals."""

from __future__ import annotations

from difflib import get_close_matches

from common.errors import ConfigError

_KINDS = {"tiles", "slices", "radiomics", "pathways", "clinical_table", "clinical_text"}


def add_extractor_kind(kind: str) -> None:
    """Let studies name another kind; whoever registers an extractor calls this."""
    _KINDS.add(kind)


def extractor_kinds() -> tuple[str, ...]:
    """Return the kinds a study may name, sorted."""
    return tuple(sorted(_KINDS))


def check_extractor_kind(feature: str, kind: str) -> None:
    """Refuse a kind that no hospital has.

    Raises:
        ConfigError: The kind is unknown.
    """
    if kind in _KINDS:
        return
    near = get_close_matches(kind, extractor_kinds(), n=1)
    raise ConfigError(
        f"unknown extractor kind '{kind}'",
        where=f"features.{feature}.extractor.kind",
        why="no hospital could extract these features, each would find out by itself",
        cure=(f"did you mean '{near[0]}'? " if near else "")
        + f"use one of: {', '.join(extractor_kinds())}",
    )
