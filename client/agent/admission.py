"""Check a request before any patient is read; nothing the server sends loosens the rules."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from client.site.inherited_spends import composed_training
from common.errors import ErrorCode, PrivacyError, ProtocolError
from common.ledger.ledger_entry import SpendEntry
from common.privacy.accounting import fallback_epsilon
from common.privacy.plan import Release
from common.protocol.evaluation_request import evaluation_promise
from common.protocol.protocol import PROTOCOL_VERSION, HandshakeRequest
from common.study.private_round import training_collusion_of
from common.study.site_policy import Approval, SitePolicy
from common.study.study import Study
from common.trust.provenance import code_digest
from common.trust.roster import Roster
from common.trust.study_roster import Objection, in_words, objections


def read_study(request: HandshakeRequest) -> Study:
    """Return the study a handshake carries, its digest recomputed here.

    Raises:
        ProtocolError: Another protocol version, another code (CODE_DIGEST), a study that cannot
            be read, or one that is not what its digest says (STUDY_DIGEST).
    """
    if request.protocol_version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the server speaks protocol {request.protocol_version}, this site {PROTOCOL_VERSION}",
            cure="install the same version of tumorboard on both sides",
        )
    if request.code_digest != code_digest():
        raise ProtocolError(
            "server and site run different code",
            where=f"server {request.code_digest[:12]}, site {code_digest()[:12]}",
            why="a hospital takes part only with the code it reviewed",
            cure="install the same version of tumorboard on both sides",
            code=ErrorCode.CODE_DIGEST,
        )
    study = parse_study(request.study_json)
    if study.digest() != request.study_digest:
        raise ProtocolError(
            "the study is not the one its digest names",
            where=f"computed {study.digest()[:12]}, announced {request.study_digest[:12]}",
            why="the study was altered on its way",
            cure="compare the digest of `tumorboard study show` on both sides",
            code=ErrorCode.STUDY_DIGEST,
        )
    return study


def parse_study(text: str) -> Study:
    """Return the study of a JSON text.

    Raises:
        ProtocolError: It breaks the contract of a study.
    """
    try:
        return Study.model_validate_json(text)
    except ValidationError as error:
        raise ProtocolError(
            "the study cannot be read",
            why=f"{error.error_count()} problems in its keys",
            cure="both sides must run the same version of tumorboard",
            code=ErrorCode.STUDY_DIGEST,
        ) from None


def check_policy(study: Study, policy: SitePolicy, digest: str | None = None) -> Approval:
    """Return the hospital's approval of a study that its policy allows.

    Args:
        study: The study.
        policy: The hospital's policy.
        digest: Digest of the study if this process has computed it already.

    Raises:
        ProtocolError: The study is not approved (NOT_APPROVED), or the policy forbids its roster,
            mode or delta (POLICY).
        PrivacyError: It promises less than the approval's ceilings (POLICY).
    """
    digest = digest or study.digest()
    approval = policy.approval_of(digest)
    if approval is None:
        raise ProtocolError(
            "this hospital has not approved the study",
            where=f"study {digest}",
            cure="read it, then run `tumorboard site approve --site FOLDER --study study.yaml`",
            code=ErrorCode.NOT_APPROVED,
        )
    if policy.site_id not in {entry.site_id for entry in study.sites}:
        raise _forbidden(f"site '{policy.site_id}' is not in the study's roster", "study.sites")
    plan = study.privacy
    if plan.mode not in policy.allowed_modes:
        raise _forbidden(
            f"privacy mode '{plan.mode}' is not allowed here",
            "site.yaml: allowed_modes",
            f"allowed: {', '.join(policy.allowed_modes)}",
        )
    if plan.is_private:
        _check_ceilings(study, policy, approval)
    _check_evaluation(study, policy, approval)
    return approval


def check_composition(study: Study, approval: Approval, inherited: Sequence[SpendEntry]) -> None:
    """Refuse a study whose weights cost more, composed with its rounds, than was approved.

    The ceiling of training itself is the ledger's; this is that if all other hospitals collude.

    Raises:
        PrivacyError: The composed epsilon exceeds the approval's ceiling (POLICY).
    """
    ceiling = approval.fallback_epsilon_ceiling
    if ceiling is None or not inherited or study.privacy.mode != "distributed":
        return
    alone = composed_training(study, inherited)[1]
    if alone > ceiling:
        raise _too_loose(
            f"epsilon {alone:.3g}, left if all other sites collude and with the training of the "
            f"weights, exceeds the approved {ceiling:g}"
        )


def check_roster(study: Study, site_id: str, roster: Roster | None, *, accepted: bool) -> None:
    """Refuse a study with a hospital that the consortium's signed roster does not admit.

    A server that was broken into could else invent hospitals, or bring revoked ones back, and
    have one hospital's secrets added up with nobody's but its own.

    Args:
        study: The study.
        site_id: This hospital.
        roster: The last known roster; None without a consortium, where nothing is checked.
        accepted: Whether the run was accepted here before. A study continues without a hospital
            that was revoked since; see `check_participants`.

    Raises:
        ProtocolError: A hospital is not admitted, is revoked, or has another key (ROSTER).
    """
    if roster is None:
        return
    wrong = objections(roster, study.sites)
    if accepted:
        wrong = {s: o for s, o in wrong.items() if o != "is revoked" or s == site_id}
    if wrong:
        raise _unlisted("the study names hospitals that are not on the roster", wrong, roster)


def check_participants(study: Study, site_ids: Iterable[str], roster: Roster | None) -> None:
    """Refuse to hide this hospital's patients among hospitals that are not admitted now.

    Args:
        study: The study.
        site_ids: Who takes part in a secure sum.
        roster: The last known roster; None without a consortium, where nothing is checked.

    Raises:
        ProtocolError: One of them is not admitted, is revoked, or has another key (ROSTER).
    """
    if roster is None:
        return
    names = set(site_ids)
    wrong = objections(roster, [entry for entry in study.sites if entry.site_id in names])
    if wrong:
        raise _unlisted("the secure sum has hospitals that are not on the roster", wrong, roster)


def agreed_release(study: Study, policy: SitePolicy) -> Release:
    """Return how evaluation tables leave: `internal` only if both study and policy say so."""
    release = study.privacy.evaluation.release
    return "internal" if release == "internal" and policy.allow_internal_evaluation else "dp"


def _check_ceilings(study: Study, policy: SitePolicy, approval: Approval) -> None:
    plan = study.privacy
    if plan.delta > policy.delta:
        raise _too_loose(f"delta {plan.delta:g} exceeds this hospital's {policy.delta:g}")
    if plan.epsilon > approval.epsilon_ceiling:
        raise _too_loose(
            f"epsilon {plan.epsilon:g} exceeds the approved {approval.epsilon_ceiling:g}"
        )
    ceiling = approval.fallback_epsilon_ceiling
    if plan.mode == "distributed" and ceiling is not None:
        shares = training_collusion_of(study).shares
        alone = fallback_epsilon(plan.epsilon, plan.delta, shares)
        if alone > ceiling:
            raise _too_loose(
                f"epsilon {alone:.3g}, left if all other sites collude, exceeds the approved "
                f"{ceiling:g}"
            )


def _check_evaluation(study: Study, policy: SitePolicy, approval: Approval) -> None:
    if agreed_release(study, policy) == "internal":
        return
    ceiling, fallback = approval.evaluation_epsilon_ceiling, approval.evaluation_fallback_ceiling
    if ceiling is None:
        raise ProtocolError(
            "this hospital's consent says nothing about evaluation",
            where=f"study {approval.study_digest}",
            why="it was given before consents bounded the evaluation of held-out patients",
            cure="read the study again, then `tumorboard site approve`",
            code=ErrorCode.NOT_APPROVED,
        )
    epsilon, alone = evaluation_promise(study, "dp")
    if epsilon > ceiling * (1 + 1e-9):
        raise _too_loose(f"evaluation epsilon {epsilon:g} exceeds the approved {ceiling:g}")
    if study.privacy.mode == "distributed" and fallback is not None and alone > fallback:
        raise _too_loose(
            f"evaluation epsilon {alone:.3g}, left if all other sites collude, exceeds the "
            f"approved {fallback:g}"
        )


def _unlisted(what: str, wrong: Mapping[str, Objection], roster: Roster) -> ProtocolError:
    return ProtocolError(
        what,
        where=f"roster of {roster.consortium}, version {roster.version}",
        why=in_words(wrong),
        cure="ask the coordinator by telephone who was admitted; see `tumorboard site roster`",
        code=ErrorCode.ROSTER,
    )


def _forbidden(what: str, where: str, why: str = "") -> ProtocolError:
    return ProtocolError(
        what,
        where=where,
        why=why,
        cure="ask the coordinator for another study, or change the hospital's policy",
        code=ErrorCode.POLICY,
    )


def _too_loose(what: str) -> PrivacyError:
    return PrivacyError(
        what,
        where="site.yaml: approvals",
        cure="ask the coordinator for a stricter plan, or approve a higher ceiling",
        code=ErrorCode.POLICY,
    )
