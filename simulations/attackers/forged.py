"""Forge handshakes and rosters as a coordinator or relay gone bad would."""

from common.contract import canonical_json
from common.protocol.protocol import HandshakeRequest
from common.study.study import Study
from common.trust.provenance import code_digest
from common.trust.roster import SignedRoster


def handshake(study: Study, run: str, **changes: str) -> HandshakeRequest:
    """Return the handshake that opens a run of a study, with some fields changed."""
    facts = {
        "run_id": run,
        "study_json": canonical_json(study.model_dump(mode="json")),
        "study_digest": study.digest(),
        "code_digest": code_digest(),
    }
    return HandshakeRequest.model_validate(facts | changes)


def forged_handshakes(approved: Study, looser: Study, other: Study) -> dict[str, HandshakeRequest]:
    """Return what is forged -> handshake that no hospital may accept.

    Args:
        approved: A study that hospitals have approved.
        looser: The same with a term that nobody approved.
        other: An approved study, for the head of a ledger that is not the hospital's.
    """
    return {
        "altered study under the approved digest": handshake(
            looser, "forged-1", study_digest=approved.digest()
        ),
        "study nobody approved": handshake(looser, "forged-2"),
        "other code": handshake(approved, "forged-3", code_digest="0" * 64),
        "head of another ledger": handshake(other, "forged-4", ledger_head="f" * 64),
    }


def newer(signed: SignedRoster) -> SignedRoster:
    """Return a roster of the next version under the signature of the present one."""
    later = signed.roster.model_copy(update={"version": signed.roster.version + 1})
    return signed.model_copy(update={"roster": later})
