"""Check a hospital's manifest against a study: usable patients, and what is still missing."""

from __future__ import annotations

from client.data.split import fraction_held
from common.cohort.features_h5 import feature_path
from common.cohort.funnel import Funnel, build_funnel
from common.cohort.manifest import read_manifest
from common.study.site_policy import SitePolicy
from common.study.study import Study


def check_cohort(policy: SitePolicy, study: Study) -> Funnel:
    """Return the cohort funnel of this hospital.

    Raises:
        ManifestError: With every problem of the manifest at once.
    """
    manifest = read_manifest(policy.manifest)

    def has_feature(feature: str, patient_id: str) -> bool:
        return feature_path(policy.feature_store, feature, patient_id).is_file()

    return build_funnel(manifest.rows, study.features, has_feature, study.tasks)


def open_points(policy: SitePolicy, study: Study, funnel: Funnel) -> list[str]:
    """Return what still stands between this hospital and taking part, one sentence each.

    Args:
        policy: The hospital's rules.
        study: The study.
        funnel: Its cohort, from `check_cohort`.
    """
    points = []
    if policy.site_id not in {entry.site_id for entry in study.sites}:
        points.append(f"the study's roster does not name '{policy.site_id}'")
    if study.privacy.mode not in policy.allowed_modes:
        modes = ", ".join(policy.allowed_modes)
        points.append(f"site.yaml allows {modes}, not the study's mode '{study.privacy.mode}'")
    if policy.approval_of(study.digest()) is None:
        points.append("this hospital has not approved the study (`tumorboard site approve`)")
    fraction = study.training.test_fraction
    own_fraction = fraction_held(policy.split_key_file)
    if own_fraction is not None and own_fraction != fraction:
        points.append(
            f"the study holds out {fraction:.6g} of the patients, this hospital {own_fraction:.6g}"
        )
    for count in funnel.features:
        if count.named > count.extracted:
            missing = count.named - count.extracted
            points.append(f"{count.feature}: input named, features not extracted for {missing}")
    if funnel.usable < policy.minimum_cohort:
        points.append(
            f"{funnel.usable} usable patients, site.yaml asks for {policy.minimum_cohort}"
        )
    return points
