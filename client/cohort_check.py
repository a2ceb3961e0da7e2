"""Reads a hospital's manifest against a study and counts what is usable."""

from __future__ import annotations

from common.funnel import Funnel
from common.manifest import read_manifest
from common.site_policy import SitePolicy
from common.study import Study


def check_cohort(policy: SitePolicy, study: Study) -> Funnel:
    """Return the cohort funnel of this hospital.

    Raises:
        ManifestError: With every problem of the manifest at once.
    """
    manifest = read_manifest(policy.manifest)

    def has_feature(feature: str, patient_id: str) -> bool:
        return (policy.feature_store / feature / f"{patient_id}.h5").is_file()

    return manifest.funnel(study.features, has_feature)
