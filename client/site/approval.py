"""Make a hospital's consent to exactly one study, with its ceilings."""

from client.site.inherited_spends import composed_training, inherited_spends, spent_on_training
from client.site.site_folder import SHORTEST
from common.errors import ConfigError, ErrorCode
from common.models.base.build import build_model
from common.models.base.weights_origin import check_origin
from common.protocol.evaluation_request import evaluation_promise
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from common.trust.plugins import check_plugins


def make_approval(
    policy: SitePolicy,
    study: Study,
    *,
    announced: str | None,
    epsilon: float | None,
    fallback_epsilon: float | None,
    evaluation_epsilon: float | None = None,
    evaluation_fallback: float | None = None,
    exact_runs: int = 1,
) -> Approval:
    """Return the hospital's consent to exactly this study.

    Args:
        policy: The hospital's rules.
        study: The study as read by the hospital.
        announced: Digest the coordinator announced, or its first 12 characters or more; None
            trusts the file.
        epsilon: Ceiling of training; the study's own, composed with the private trainings of its
            weights that are not in this hospital's ledger, if None.
        fallback_epsilon: Ceiling of training if all other hospitals collude.
        evaluation_epsilon: Ceiling of all evaluations; that of the study's one planned evaluation
            if None.
        evaluation_fallback: Ceiling of evaluation if all other hospitals collude.
        exact_runs: Runs whose exact tables may leave, in a study of release internal.

    Raises:
        ConfigError: The file is not the announced study (STUDY_DIGEST), its roster does not name
            this hospital, a ceiling is not positive, or the study uses code of another
            distribution than is installed here (PLUGIN).
        PrivacyError: The study is private, but not the origin of its weights (WEIGHTS_ORIGIN).
    """
    check_plugins(study)
    digest = study.digest()
    if announced is not None and (len(announced) < SHORTEST or not digest.startswith(announced)):
        raise ConfigError(
            "this is not the study that was announced",
            where=f"digest {digest}",
            why=f"announced was {announced}; {SHORTEST} characters or more are compared",
            cure="ask the coordinator for the frozen study, and compare the digest by telephone",
            code=ErrorCode.STUDY_DIGEST,
        )
    if policy.site_id not in {entry.site_id for entry in study.sites}:
        raise ConfigError(
            f"the study's roster does not name '{policy.site_id}'",
            where="study: sites",
            why=f"it names {', '.join(entry.site_id for entry in study.sites)}",
            cure="ask the coordinator to add this hospital, or correct site_id in site.yaml",
        )
    check_origin(study, build_model(study))
    ceilings = {
        "study_digest": digest,
        "epsilon_ceiling": _default_ceiling(policy, study) if epsilon is None else epsilon,
        "fallback_epsilon_ceiling": fallback_epsilon,
        "evaluation_epsilon_ceiling": evaluation_epsilon or evaluation_promise(study, "dp")[0],
        "evaluation_fallback_ceiling": evaluation_fallback,
        "exact_runs": exact_runs,
    }
    return Approval.from_mapping(ceilings, where="--epsilon and the other ceilings")


def _default_ceiling(policy: SitePolicy, study: Study) -> float:
    """Return the study's epsilon, composed with what its weights cost this hospital already."""
    inherited = inherited_spends(study, spent_on_training(policy))
    composed = composed_training(study, inherited)[0] if inherited else 0.0
    return max(composed, study.privacy.epsilon)
