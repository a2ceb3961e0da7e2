"""What a hospital keeps on disk of a run it agreed to."""

from __future__ import annotations

from common.contract import Contract
from common.study.study import Identifier


class AcceptedRun(Contract):
    """What a hospital keeps of an accepted handshake, so that a restart needs none."""

    run_id: Identifier
    study_digest: str
    study_json: str
