"""Turn a scenario and an arm into the study that the consortium would agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import ConfigError
from common.privacy.plan import EvaluationRelease, PrivacyPlan
from common.study.study import Quorum, RosterEntry, Study, TrainingPlan
from common.trust.plugins import with_plugins
from simulations.cohorts.cohort import Cohort, group_small_hospitals
from simulations.cohorts.fed_tcga_brca import load_fed_tcga_brca
from simulations.cohorts.tcga import breast_regions, load_tcga
from simulations.scenario.scenario import Arm, GivenSource, Scenario, TcgaSource

SILENT_ROUND_S = 0.05
"""How long a simulated round waits for a site that says nothing; replies come before that."""

NO_PRIVACY = PrivacyPlan(mode="none", evaluation=EvaluationRelease(release="internal"))


def load_cohort(scenario: Scenario, data: Path | str) -> Cohort:
    """Return the scenario's cohort with its hospitals grouped; held-out hospitals left out.

    Raises:
        ConfigError: The scenario's cohort is no public one.
        DataError: Files are missing, or a feature set is unknown.
    """
    data = Path(data)
    region: dict[str, str] = {}
    if isinstance(scenario.cohort, GivenSource):
        raise ConfigError(
            "the scenario was made for a cohort in memory",
            where=scenario.name,
            cure="build the cohort again with read_cohort and pass it to run_scenario",
        )
    if isinstance(scenario.cohort, TcgaSource):
        source = scenario.cohort
        cohort = load_tcga(source.name, data, components=source.components, trunk=source.trunk)
        region = breast_regions(data) if scenario.hospitals.rest == "region" else {}
    else:
        cohort = load_fed_tcga_brca(data, standardise_age=scenario.cohort.standardise_age)
    rule = scenario.hospitals
    hospitals = group_small_hospitals(
        cohort.hospital, minimum=rule.minimum, rest=rule.rest, region=region
    )
    cohort = replace(cohort, hospital=hospitals)
    return cohort.with_features(scenario.needed_features).take((hospitals != "").nonzero()[0])


def arm_study(
    scenario: Scenario,
    arm: Arm,
    cohort: Cohort,
    sites: Sequence[str],
    *,
    n_train: int,
    seed: int,
    sizes: Mapping[str, int] | None = None,
) -> Study:
    """Return the study of one arm over `sites`.

    The nominal count that divides gradient sums is the public size of the simulated training
    cohort unless the plan of the arm or scenario sets its own.

    Args:
        scenario: The scenario.
        arm: The arm.
        cohort: Gives the feature specifications.
        sites: Hospitals that train.
        n_train: Training patients of all sites together.
        seed: Seed of initial weights and shuffling.
        sizes: Site -> announced number of training patients; None: not announced.
    """
    names = arm.features or scenario.features
    plan = arm.training or scenario.training
    model = (arm.model or scenario.model).model_copy(update={"init_seed": seed})
    updates: dict[str, object] = {"seed": seed, "test_fraction": 0.0}
    if "nominal_patients" not in plan.model_fields_set:
        updates["nominal_patients"] = n_train
    circumstances = arm.circumstances
    reliable = not circumstances.has_silence and circumstances.poison is None
    quorum = Quorum(min_sites=len(sites)) if reliable else Quorum(min_sites=1)
    if circumstances.has_silence:
        quorum = Quorum(min_sites=1, round_timeout_s=SILENT_ROUND_S)
    study = Study(
        study_id=f"{scenario.name}-{arm.name}",
        title=scenario.title,
        endpoints=scenario.endpoints,
        features={name: cohort.specs[name] for name in names},
        model=model,
        training=TrainingPlan.model_validate({**plan.model_dump(), **updates}),
        privacy=arm.privacy or NO_PRIVACY,
        quorum=quorum,
        sites=[
            RosterEntry(site_id=site, nominal_patients=sizes[site] if sizes else None)
            for site in sites
        ],
    )
    return with_plugins(study)
