"""Name what a hospital is asked, so that answers to different questions never add up."""

from common.contract import canonical_json, sha256_hex
from common.protocol.protocol import EvaluateRequest, TrainRequest


def question_digest(study_digest: str, request: TrainRequest | EvaluateRequest, length: int) -> str:
    """Return the SHA-256 of everything an answer depends on besides the patients, in hex.

    Every field of the request counts: run, round, phase, release, label, digest of the model,
    cuts, censoring curve. The masks of a secure sum and the list of its survivors are bound to
    this digest, so a server that asks one hospital another question than the others gets noise.

    Args:
        study_digest: Digest of the approved study.
        request: What is asked; its arrays count by their digest, which the hospital checks.
        length: Values in the answer; counter-mode masks of unequal lengths would share a prefix.
    """
    fields = request.model_dump(mode="json")
    return sha256_hex(canonical_json([type(request).__name__, study_digest, fields, length]))
