"""Compute the fingerprints of a study's extractors as installed, to be stated in the study."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.extract.kinds.extractor import create_extractor
from common.study.study import Study


@dataclass(frozen=True)
class FeatureFingerprint:
    """The extractor of one feature set.

    Attributes:
        feature: Key in `Study.features`.
        found: Fingerprint of the extractor installed here; None for features brought ready-made.
        stated: Fingerprint in the study, None where it states none.
    """

    feature: str
    found: str | None
    stated: str | None

    @property
    def differs(self) -> bool:
        """Whether the study states another extractor than is installed."""
        return None not in (self.found, self.stated) and self.found != self.stated


def study_fingerprints(study: Study) -> list[FeatureFingerprint]:
    """Return the fingerprint of every feature set's extractor, in the study's order.

    Raises:
        ConfigError: An extractor cannot be built: unknown kind, wrong parameters or weights, or
            an extra is not installed.
    """
    return [
        FeatureFingerprint(
            feature=name,
            found=create_extractor(name, spec).fingerprint if spec.extractor else None,
            stated=spec.fingerprint,
        )
        for name, spec in study.features.items()
    ]


def as_yaml(fingerprints: Sequence[FeatureFingerprint]) -> list[str]:
    """Return lines to paste into study.yaml, with a comment on what the study says now."""
    lines = ["features:"]
    for entry in fingerprints:
        lines.append(f"  {entry.feature}:")
        if entry.found is None:
            lines.append("    # features come ready-made; there is no extractor")
            continue
        note = "differs from the study" if entry.differs else "as the study says"
        comment = "not stated yet" if entry.stated is None else note
        lines.append(f"    fingerprint: {entry.found}  # {comment}")
    return lines
