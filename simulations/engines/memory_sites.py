"""Build simulated hospitals: real site agents over patients held in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.agent.local_rounds import own_model
from client.agent.open_run import accepted_study, open_run
from client.agent.site_agent import SiteAgent
from client.data.dataset import PatientDataset
from client.site.identity import create_identity, load_identity, public_key
from common.protocol.protocol import AgentApi
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort

EVALUATION_EPSILON = 20.0
"""What a simulated hospital allows for all evaluations of held-out patients together."""


@dataclass(frozen=True)
class MemoryCohort:
    """Provider of one simulated hospital's patients."""

    cohort: Cohort

    def __call__(self, study: Study) -> PatientDataset:
        """Return the hospital's patients as a dataset of `study`."""
        return self.cohort.dataset(study)


def memory_agents(study: Study, groups: Mapping[str, Cohort], folder: Path) -> dict[str, AgentApi]:
    """Return one site agent per hospital, each with its own folder, ledger and consent.

    Every simulated hospital consents to the study as it stands; a real one decides itself.

    Args:
        study: The study all agree on.
        groups: Site -> its patients.
        folder: Parent of the sites' folders.
    """
    agents: dict[str, AgentApi] = {}
    for site_id, cohort in groups.items():
        policy = simulated_policy(study, site_id, folder / site_id)
        if study.privacy.mode == "local":  # elsewhere it makes no difference
            declared = list(cohort.dataset(study).modalities)
            policy = policy.model_copy(update={"modalities": declared})
        agents[site_id] = SiteAgent(policy, MemoryCohort(cohort))
    return agents


def own_models(
    study: Study, groups: Mapping[str, Cohort], folder: Path, run_id: str, arrays: Arrays
) -> dict[str, Arrays]:
    """Return site -> the model it uses for its own patients; empty if all use the global one.

    Args:
        study: The study of a finished run.
        groups: Site -> its patients.
        folder: Parent of the sites' folders, as given to `memory_agents`.
        run_id: Identifier of the run.
        arrays: The global model.
    """
    plan = study.training
    if plan.personal is None and not plan.stay_local:
        return {}
    models = {}
    for site_id, cohort in groups.items():
        policy = simulated_policy(study, site_id, folder / site_id)
        run = open_run(policy, run_id, accepted_study(policy, run_id), MemoryCohort(cohort))
        models[site_id] = own_model(run, arrays, personal=plan.personal is not None)
    return models


def simulated_policy(study: Study, site_id: str, folder: Path) -> SitePolicy:
    """Return the policy of a simulated hospital that agrees to `study` and nothing else."""
    plan = study.privacy
    approval = Approval(
        study_digest=study.digest(),
        epsilon_ceiling=plan.epsilon,
        evaluation_epsilon_ceiling=EVALUATION_EPSILON,
    )
    return SitePolicy(
        site_id=site_id,
        approvals=[approval],
        device="cpu",
        minimum_cohort=1,
        allowed_modes=[plan.mode],
        lifetime_epsilon=plan.epsilon,
        lifetime_evaluation_epsilon=EVALUATION_EPSILON,
        delta=plan.delta,
        allow_internal_evaluation=plan.evaluation.release == "internal",
    ).resolved(folder)


def with_identities(study: Study, folder: Path) -> Study:
    """Return the study with every site's public key on its roster, made on first use.

    Each private key lies at `<folder>/<site_id>/private/identity.key`, where a policy with
    default paths in `<folder>/<site_id>` looks for it. Do this before the study is approved:
    the roster is part of its digest.
    """
    return study.model_copy(
        update={
            "sites": [
                entry.model_copy(update={"public_key": _identity(folder / entry.site_id)})
                for entry in study.sites
            ]
        }
    )


def _identity(site_folder: Path) -> str:
    path = site_folder / "private" / "identity.key"
    return public_key(load_identity(path)) if path.exists() else create_identity(path)
