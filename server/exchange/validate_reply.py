"""Validate the form of a reply before it may touch the global model or a table.

Stock averaging accepts NaN, infinities, 1e30 and a weight of 1e12. Here every reply is checked
for declared keys, shapes, dtype, finiteness, norm and weights; what fails is dropped with a
stable code and the round continues without it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from common.errors import ErrorCode, ProtocolError
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import tables_of
from common.metrics.tables.tables import SiteTables
from common.models.base.parameters import block_of
from common.privacy.integer_encoding import unflatten
from common.privacy.sum_norm import longest_sum
from common.protocol.evaluation_request import grid_of
from common.protocol.protocol import EvaluateReply, EvaluateRequest, TrainReply
from common.study.federated_method import stays_local
from common.study.modalities import MODALITIES, Modality
from common.study.private_round import encoding_of, sigma_of
from common.study.study import Study
from common.wire import Arrays, joint_norm

MAX_BLOCK_PATIENTS = 1e6
"""No hospital trains on more patients; a larger weight would decide the average alone."""

MAX_DELTA_RATIO = 100.0
"""A delta longer than this many times (1 + norm of the global model) is not a training step."""

MAX_GRADIENT_PER_PATIENT = 1e4
"""Bound on an unclipped per-patient gradient (mode none only)."""

NOMINAL_SLACK = 10.0
"""How much larger than the public nominal count a cohort may be."""

ANNOUNCED_SLACK = 2.0
"""How much larger than announced in the roster a site's cohort may be."""

NOISE_SPREADS = 8.0
"""Standard deviations of the norm of the noise that a private reply may exceed its mean by."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExpectedUpdate:
    """The form of a training update.

    Attributes:
        study: The study of the run.
        shapes: Shape of every trained parameter.
        model_norm: L2 norm of the global model.
    """

    study: Study
    shapes: Mapping[str, tuple[int, ...]]
    model_norm: float

    @property
    def is_delta(self) -> bool:
        """Whether an update is a change of parameters, not a gradient sum."""
        return self.study.training.local.kind != "gradient_sum"

    @cached_property
    def noise_sd(self) -> float:
        """Standard deviation of one coordinate of a site's own noise; mode local only, else 0."""
        plan = self.study.privacy
        return plan.clip * sigma_of(self.study) if plan.mode == "local" else 0.0

    def check(self, reply: TrainReply, site_id: str, modalities: Sequence[Modality]) -> None:
        """Accept the update of one site that declared these modalities, or refuse it.

        Raises:
            ProtocolError: With code PAYLOAD (form, norm, weight) or NOT_FINITE.
        """
        if reply.kind != ("delta" if self.is_delta else "gradient_sum"):
            raise refused(site_id, f"an update of kind {reply.kind} was not asked for")
        self._check_blocks(reply, site_id, modalities)
        _check_arrays(site_id, reply.arrays, self.shapes)
        norm = joint_norm(reply.arrays)
        bound = self.norm_bound(sum(a.size for a in reply.arrays.values()), site_id)
        if norm > bound:
            what = f"the update has norm {norm:.3g}, at most {bound:.3g} is possible"
            raise refused(site_id, what)
        self._check_weights(reply, site_id)
        if (reply.steps is None) == self.study.training.local.control_variates:
            raise refused(site_id, "the number of steps is missing, or was not asked for")

    def check_masked(self, reply: TrainReply, site_id: str, key_session: int) -> None:
        """Accept a masked upload; its arrays are checked where they are added up.

        Raises:
            ProtocolError: It contains counts or a loss (PAYLOAD), or is masked under other keys
                (SECURE_SUM).
        """
        if reply.kind != "masked" or reply.weights or reply.loss is not None:
            raise refused(site_id, "the update is not a masked upload alone")
        _check_keys(site_id, reply.session, key_session)

    def decode(self, total: Int64, sites: Sequence[str]) -> Arrays:
        """Return the opened sum of these sites, float64, by parameter.

        A site that misbehaves cannot be identified in a sum: all of it is refused.

        Raises:
            ProtocolError: It is longer than clipping and noise allow (PAYLOAD).
        """
        encoding = encoding_of(self.study, self.shapes)
        patients = sum(self.study.nominal_by_site[site] for site in sites)
        bound = longest_sum(encoding, patients, len(sites))
        vector = encoding.decode(total)
        norm = joint_norm({"sum": vector})
        if norm > bound:
            what = f"the opened sum has norm {norm:.3g}, at most {bound:.3g} is possible"
            raise refused(", ".join(sites), what)
        return dict(unflatten(vector, self.shapes))

    def norm_bound(self, n_coordinates: int, site_id: str) -> float:
        """Return the longest update an honest site can send.

        A private sum has norm <= clip * patients plus noise, whose norm concentrates around
        sd * sqrt(d) with a spread below sd (chi distribution): a mean over n patients may be as
        long as C + sigma C sqrt(d) / n.
        """
        if self.is_delta:
            return MAX_DELTA_RATIO * (1 + self.model_norm)
        if self.study.privacy.mode == "none":
            return MAX_GRADIENT_PER_PATIENT * self.study.training.nominal_patients
        noise = self.noise_sd * (math.sqrt(n_coordinates) + NOISE_SPREADS)
        return self.study.privacy.clip * most_patients(self.study, site_id) + noise

    def _check_blocks(
        self, reply: TrainReply, site_id: str, modalities: Sequence[Modality]
    ) -> None:
        absent = set(MODALITIES) - set(modalities)
        unknown = set(reply.blocks) - {block_of(name) for name in self.shapes}
        if unknown or absent & set(reply.blocks) or len(set(reply.blocks)) != len(reply.blocks):
            raise refused(site_id, "the update names blocks that the site does not have")
        local_patterns = tuple(self.study.training.stay_local)
        due = {
            name
            for name in self.shapes
            if block_of(name) in reply.blocks and not stays_local(name, local_patterns)
        }
        if not due or set(reply.arrays) != due:
            raise refused(site_id, "parameters are missing or unknown")

    def _check_weights(self, reply: TrainReply, site_id: str) -> None:
        private = self.study.privacy.is_private
        if private and (reply.weights or reply.loss is not None):
            raise refused(site_id, "a private update contains counts or a loss")
        due = set(reply.blocks) if self.is_delta else set()
        if not private and not due <= set(reply.weights) <= set(reply.blocks):
            raise refused(site_id, "block weights are missing or unknown")
        if any(not 0 <= weight <= MAX_BLOCK_PATIENTS for weight in reply.weights.values()):
            what = f"a weight is negative or above {MAX_BLOCK_PATIENTS:.0f} patients"
            raise refused(site_id, what)


@dataclass(frozen=True)
class ExpectedTables:
    """The form of evaluation tables.

    Attributes:
        study: The study of the run.
        request: What every site is asked; without a model.
    """

    study: Study
    request: EvaluateRequest

    @cached_property
    def grid(self) -> EvaluationGrid:
        """Grid on which all sites tabulate."""
        return grid_of(self.study, self.request)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every table."""
        tables = tables_of(self.grid, self.request.phase)
        return {name: table.shape(self.grid) for name, table in tables.items()}

    def check(self, reply: EvaluateReply, site_id: str, modalities: Sequence[Modality]) -> None:
        """Accept the tables of one site, or refuse them.

        Raises:
            ProtocolError: They are not what was requested, or (PAYLOAD) do not fit the grid.
        """
        self._check_question(reply, site_id)
        SiteTables.from_arrays(reply.arrays, self.grid, self.request.phase)

    def check_masked(self, reply: EvaluateReply, site_id: str, key_session: int) -> None:
        """Accept masked tables; they are checked where they are added up.

        Raises:
            ProtocolError: They are not what was requested, or are masked under other keys
                (SECURE_SUM).
        """
        self._check_question(reply, site_id)
        _check_keys(site_id, reply.session, key_session)

    def decode(self, total: Int64, sites: Sequence[str]) -> Arrays:
        """Return the opened sum of tables, int64, by name."""
        return dict(unflatten(total, self.shapes))

    def _check_question(self, reply: EvaluateReply, site_id: str) -> None:
        question = self.request
        if (reply.label, reply.release, reply.phase) != (
            question.label,
            question.release,
            question.phase,
        ):
            raise ProtocolError("the tables are not the ones asked for", where=site_id)
        if reply.cohort is not None and question.release != "internal":
            raise refused(site_id, "exact counts came with a release that has none")


Expected = ExpectedUpdate | ExpectedTables


def refused(site_id: str, what: str) -> ProtocolError:
    """Return the error of a reply whose content cannot be taken."""
    return ProtocolError(what, where=site_id, code=ErrorCode.PAYLOAD)


def most_patients(study: Study, site_id: str) -> float:
    """Return the largest training cohort that the server believes of a site.

    Up to twice what the site announced in the roster; without that, up to ten times the nominal
    count of all sites together.
    """
    size = {site.site_id: site.nominal_patients for site in study.sites}.get(site_id)
    if size is not None:
        return ANNOUNCED_SLACK * size
    return NOMINAL_SLACK * study.training.nominal_patients


def _check_keys(site_id: str, reply_session: int | None, key_session: int) -> None:
    if reply_session != key_session:
        raise ProtocolError(
            "the upload is masked under other keys", where=site_id, code=ErrorCode.SECURE_SUM
        )


def _check_arrays(site_id: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise refused(site_id, f"{name} has shape {array.shape}, not {shapes[name]}")
        if array.dtype != np.float32:
            raise refused(site_id, f"{name} is {array.dtype}, not float32")
        if not np.isfinite(array).all():
            raise ProtocolError(
                f"{name} holds values that are not finite",
                where=site_id,
                code=ErrorCode.NOT_FINITE,
            )
