"""Release a hospital's results: plain, or masked so that only the sum can be opened."""

import math
from collections.abc import Mapping

import numpy as np

from client.agent.secure_sums import SecureSums
from common.errors import ErrorCode, ProtocolError
from common.metrics.tables.tables import SiteTables
from common.privacy.integer_encoding import Int64, IntegerEncoding, unflatten
from common.protocol.protocol import EvaluateRequest, TrainRequest
from common.secure_sum.ledger_mark import LedgerMark
from common.study.private_round import collusion_of
from common.study.study import Study
from common.wire import Arrays

Shapes = Mapping[str, tuple[int, ...]]


class Release:
    """Let noised values leave as they are; modes none and local.

    Attributes:
        shares: Hospitals whose noise together makes one whole noise.
        all_blocks: Whether gradients of all parameters leave, with noise alone for modalities that
            the hospital lacks: the noise of a masked coordinate is whole only if n_min sites
            carry it.
    """

    shares = 1
    all_blocks = False

    def session(self, request: TrainRequest | EvaluateRequest) -> int | None:
        """Return the number of the key agreement that masks a reply; None if nothing does.

        Raises:
            ProtocolError: No keys were agreed on, or the request names no secure sum
                (SECURE_SUM).
        """
        return None

    def mark(
        self, request: TrainRequest | EvaluateRequest, position: int, head: str
    ) -> LedgerMark | None:
        """Return None."""
        return None

    def longest_sum(self, study: Study, site_id: str) -> float:
        """Return how long a sum of clipped gradients may be before noise; here any length."""
        return math.inf

    def gradient_sum(
        self, request: TrainRequest, noised: Int64, encoding: IntegerEncoding, shapes: Shapes
    ) -> tuple[str, Arrays]:
        """Return kind and arrays of the update of a round; here in gradient units, float32."""
        arrays = unflatten(encoding.decode(noised), shapes)
        return "gradient_sum", {n: a.astype(np.float32) for n, a in arrays.items()}

    def tables(self, request: EvaluateRequest, tables: SiteTables) -> Arrays:
        """Return the arrays of an evaluation's reply; here the tables by name."""
        return tables.to_arrays()


class MaskedRelease(Release):
    """Let values leave as masked integers; mode distributed."""

    all_blocks = True

    def __init__(self, study: Study, sums: SecureSums) -> None:
        self._rounds, self._sums = study.training.rounds, sums
        self.shares = collusion_of(study).shares

    def session(self, request: TrainRequest | EvaluateRequest) -> int | None:
        """Return the number of the key agreement in force."""
        if isinstance(request, EvaluateRequest) and (request.sum_round or 0) <= self._rounds:
            raise ProtocolError(
                "tables of this study are sent only through the secure sum",
                where=request.run_id,
                code=ErrorCode.SECURE_SUM,
            )
        return self._sums.session

    def mark(
        self, request: TrainRequest | EvaluateRequest, position: int, head: str
    ) -> LedgerMark | None:
        """Return the signed mark; without it the other hospitals open no sum."""
        return self._sums.mark(_number(request), position, head)

    def longest_sum(self, study: Study, site_id: str) -> float:
        """Return clip times the public count of the hospital's patients.

        The server refuses a sum longer than that of its hospitals; a hospital with more patients
        than it announced must not be what makes it so.
        """
        return study.privacy.clip * study.nominal_by_site[site_id]

    def gradient_sum(
        self, request: TrainRequest, noised: Int64, encoding: IntegerEncoding, shapes: Shapes
    ) -> tuple[str, Arrays]:
        """Return the masked upload of a sum."""
        return "masked", self._sums.masked(_number(request), noised, request)

    def tables(self, request: EvaluateRequest, tables: SiteTables) -> Arrays:
        """Return the masked upload of all tables, in the order of their names."""
        parts = [tables.arrays[name].reshape(-1) for name in sorted(tables.arrays)]
        return self._sums.masked(_number(request), np.concatenate(parts), request)


def _number(request: TrainRequest | EvaluateRequest) -> int:
    """Return the number of the secure sum that a request is for."""
    return request.round if isinstance(request, TrainRequest) else request.sum_round or 0
