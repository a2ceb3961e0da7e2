"""Declare a study: what a consortium agrees on before any patient is read.

`Study.digest()` is what every hospital approves. All constants here are public; none may be
estimated from patients.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from common.contract import Contract
from common.errors import PrivacyError
from common.privacy.collusion import Collusion
from common.privacy.plan import PrivacyPlan
from common.study.catalogue import RULES
from common.study.federated_method import AggregationRule, check_method
from common.study.modalities import MODALITIES, Modality
from common.study.plugin import Plugin
from common.study.subgroups import Subgroup, SubgroupName
from common.study.weights_card import StudyWeights

Task = Literal["response", "survival"]
TASKS: tuple[Task, ...] = ("response", "survival")
IDENTIFIER = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Identifier = Annotated[str, Field(pattern=IDENTIFIER)]


class PublicScaling(Contract):
    """x -> clip((x - center) / scale, ±clip), then rows rescaled to norm <= row_norm.

    `center` and `scale` are scalars or one number a feature column, taken from public cohorts
    or physical units.
    """

    center: float | list[float] = 0.0
    scale: float | list[float] = 1.0
    clip: float | None = Field(default=None, gt=0)
    row_norm: float | None = Field(default=None, gt=0, description="public bound on a row's norm")


class ExtractorSpec(Contract):
    """Which extractor turns raw files into this feature set, and how."""

    kind: str = Field(description="name in the extractor registry, e.g. tiles, slices, radiomics")
    params: dict[str, JsonValue] = Field(default_factory=dict)


class FeatureSpec(Contract):
    """One feature set: a bag of tokens (T, dim) a patient."""

    modality: Modality
    dim: int = Field(gt=0, description="width of a token")
    max_tokens: int = Field(default=1, gt=0, description="longer bags are subsampled, seeded")
    pool: Literal["mean", "flatten", "row_mean"] = Field(
        default="mean",
        description="how linear heads see it: mean over tokens (dim), all tokens in order "
        "(max_tokens*dim), or the mean of each token (max_tokens)",
    )
    scaling: PublicScaling = PublicScaling()
    extractor: ExtractorSpec | None = None
    fingerprint: str | None = Field(
        default=None, description="extractor fingerprint; files made otherwise are refused"
    )
    names: list[str] | None = Field(
        default=None, description="names of the dim columns (vectors) or of the tokens (row_mean)"
    )

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled vector."""
        return {
            "mean": self.dim,
            "flatten": self.dim * self.max_tokens,
            "row_mean": self.max_tokens,
        }[self.pool]


class ResponseEndpoint(Contract):
    """Binary treatment response; 1 is the positive class."""

    positive: str = Field(description="what 1 means, in words")
    prevalence: float | None = Field(
        default=None, gt=0, lt=1, description="published prevalence; initialises the bias"
    )


class SurvivalEndpoint(Contract):
    """Overall survival on public interval edges.

    `edges_months` are the left edges and the last right edge of the K finite intervals; the
    last interval is open on the right: K = len(edges_months). Intervals are half-open [a, b).
    """

    edges_months: list[float] = Field(default=[0.0, 12.0, 24.0, 36.0, 60.0], min_length=2)
    horizons_months: list[float] = Field(default=[12.0, 36.0, 60.0], min_length=1)
    hazards: list[float] | None = Field(
        default=None, description="published hazard per interval (K); initialises the biases"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        edges = self.edges_months
        if edges[0] != 0 or any(b <= a for a, b in pairwise(edges)):
            raise ValueError("edges_months must start at 0 and increase")
        if self.hazards is not None and len(self.hazards) != self.n_intervals:
            raise ValueError(f"hazards needs {self.n_intervals} values, one an interval")
        if self.hazards is not None and not all(0 < hazard < 1 for hazard in self.hazards):
            raise ValueError(
                "hazards are probabilities of dying in an interval, above 0 and below 1"
            )
        if any(b <= a for a, b in pairwise([0.0, *self.horizons_months])):
            raise ValueError("horizons_months must be above 0 and increase")
        return self

    @property
    def n_intervals(self) -> int:
        """Number K of discrete intervals, the open last one included."""
        return len(self.edges_months)


class Endpoints(Contract):
    """What the model predicts; at least one task."""

    response: ResponseEndpoint | None = None
    survival: SurvivalEndpoint | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.response is None and self.survival is None:
            raise ValueError("a study needs a response or a survival endpoint")
        return self


class ModelSpec(Contract):
    """Name in the model registry, with its options."""

    name: str = "moemil"
    options: dict[str, JsonValue] = Field(default_factory=dict)
    init_seed: int = Field(default=2024, description="public seed of the initial weights")


class ServerOptimizer(Contract):
    """How the server applies the aggregated update.

    `average` replaces the model by the weighted mean (FedAvg); the others treat the mean delta
    or gradient as a pseudo-gradient (Reddi et al., 2021).
    """

    name: Literal["average", "sgd", "adam", "yogi", "adagrad"] = "adam"
    lr: float = Field(default=0.02, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    tau: float = Field(default=1e-8, gt=0)
    bias_correction: bool = True


class LocalTraining(Contract):
    """What a site does in a round.

    `gradient_sum`: one full-batch pass, the sum of per-patient gradients (the only way in mode
    distributed). `epochs`: some epochs or `steps` of an optimiser; the delta is sent. In mode
    local every step is a noised full-batch step (DP-SGD): `epochs` or `steps` count them,
    `batch_size` is unused, and more steps a round mean more noise in each.
    """

    kind: Literal["gradient_sum", "epochs"] = "gradient_sum"
    epochs: int = Field(default=1, gt=0)
    steps: int | None = Field(default=None, gt=0, description="if set, this many batches instead")
    batch_size: int = Field(default=16, gt=0)
    optimizer: Literal["sgd", "adam", "adamw", "radam"] = "adamw"
    lr: float = Field(default=2e-4, gt=0)
    proximal_mu: float = Field(default=0.0, ge=0, description="FedProx pull to the global model")
    control_variates: bool = Field(
        default=False, description="SCAFFOLD: correct every step by the drift of this site"
    )
    modality_dropout: float = Field(default=0.0, ge=0, lt=1)


class Personalisation(Contract):
    """A model of its own for every site, beside the global one; it never leaves the site.

    `ditto`: trained on in every round, pulled to the global model by `local.proximal_mu` (Li et
    al., 2021). `fine_tune`: the final global model, trained on at the site once.
    """

    kind: Literal["ditto", "fine_tune"]
    local: LocalTraining = LocalTraining(kind="epochs")


class TrainingPlan(Contract):
    """Rounds, optimisers and the public constants that replace private counts."""

    rounds: int = Field(default=100, gt=0)
    local: LocalTraining = LocalTraining()
    server: ServerOptimizer = ServerOptimizer()
    weight_decay: float = Field(default=1e-3, ge=0)
    nominal_patients: int = Field(
        default=300, gt=0, description="public count that divides gradient sums; never the true n"
    )
    nominal_by_modality: dict[Modality, int] = Field(default_factory=dict)
    average_last: float = Field(
        default=0.5, ge=0, le=1, description="share of the last iterates that is averaged"
    )
    task_weights: dict[Task, float] = Field(default_factory=dict)
    schedule: Literal["all", "cyclic"] = Field(
        default="all",
        description="cyclic: one site per round trains and passes the model on (weight transfer)",
    )
    aggregation: AggregationRule = AggregationRule()
    stay_local: list[str] = Field(
        default_factory=list,
        description="patterns (*, ?) of parameters that every site keeps for itself, e.g. "
        "'*norm*' (FedBN) or 'heads.*_bias'",
    )
    personal: Personalisation | None = None
    test_fraction: float = Field(default=0.25, ge=0, lt=1, description="held out by keyed hash")
    seed: int = Field(default=7, description="shuffling and dropout; never privacy noise")


class Quorum(Contract):
    """When a round counts."""

    min_sites: int = Field(default=2, gt=0)
    round_timeout_s: float = Field(default=600.0, gt=0)


class RosterEntry(Contract):
    """A hospital in the consortium."""

    site_id: Identifier
    name: str = ""
    public_key: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="registered identity: Ed25519 public key, 64 hex characters",
    )
    nominal_patients: int | None = Field(
        default=None,
        gt=0,
        description="public size of its training cohort, announced by the site; bounds how long "
        "an update of it can be. Never the true number",
    )


class Study(Contract):
    """Everything the consortium agrees on; its digest is what hospitals approve."""

    study_id: Identifier
    version: int = Field(default=1, gt=0)
    title: str = ""
    synthetic: bool = Field(default=False, description="data is synthetic; every output says so")
    endpoints: Endpoints
    features: dict[str, FeatureSpec] = Field(min_length=1)
    model: ModelSpec = ModelSpec()
    training: TrainingPlan = TrainingPlan()
    privacy: PrivacyPlan = PrivacyPlan()
    subgroups: dict[SubgroupName, Subgroup] = Field(
        default_factory=dict,
        max_length=8,
        description="public groups by which the evaluation is broken down, e.g. sex, age, stage",
    )
    quorum: Quorum = Quorum()
    sites: list[RosterEntry] = Field(min_length=1)
    plugins: list[Plugin] = Field(
        default_factory=list,
        exclude_if=lambda plugins: not plugins,
        description="code of other distributions; `tumorboard study freeze` fills it in",
    )
    weights: StudyWeights = Field(
        default=StudyWeights(),
        exclude_if=lambda weights: weights == StudyWeights(),
        description="where weights come from that the study does not train from nothing",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        rule = self.training.aggregation.rule
        if rule not in RULES and all(plugin.name != rule for plugin in self.plugins):
            raise ValueError(
                f"training.aggregation.rule: unknown rule '{rule}', use one of: "
                + ", ".join(RULES.names())
            )
        ids = [site.site_id for site in self.sites]
        if len(set(ids)) != len(ids):
            raise ValueError("sites: every site_id must be unique")
        if self.privacy.mode == "distributed" and self.training.local.kind != "gradient_sum":
            raise ValueError(
                "privacy.mode 'distributed' opens one sum per round and needs "
                "training.local.kind: gradient_sum; local epochs work in mode 'local'"
            )
        if self.quorum.min_sites > len(ids):
            raise ValueError("quorum.min_sites is larger than the number of sites")
        if self.privacy.mode == "distributed" and len(ids) < 3:
            raise ValueError(
                "privacy.mode 'distributed' needs at least 3 sites: with fewer, the sum of the "
                "others is one hospital's own data; use mode 'local'"
            )
        self._check_promise(len(ids))
        check_method(self.training, self.privacy.mode, self.privacy.groups)
        return self

    def _check_promise(self, n_sites: int) -> None:
        plan = self.privacy
        if plan.mode == "distributed":
            try:
                Collusion.of_plan(plan, n_sites)
                Collusion.of_groups(plan, n_sites)
            except PrivacyError as error:
                reasons = filter(None, (error.what, error.why, error.cure))
                raise ValueError("; ".join(reasons)) from None
        most = 0.1 / self.training.nominal_patients
        if plan.is_private and plan.delta > most:
            raise ValueError(
                f"privacy.delta is above 1 / (10 training.nominal_patients) = {most:.2g}: it would "
                "allow whole patients to be published; use 1e-5, or less"
            )

    @property
    def nominal_by_site(self) -> dict[str, float]:
        """Public number of training patients of every site; an equal share where not announced."""
        share = self.training.nominal_patients / len(self.sites)
        return {site.site_id: float(site.nominal_patients or share) for site in self.sites}

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks with an endpoint, in canonical order."""
        return tuple(task for task in TASKS if getattr(self.endpoints, task) is not None)

    @property
    def n_intervals(self) -> int:
        """Number K of survival intervals, 0 without a survival endpoint."""
        return self.endpoints.survival.n_intervals if self.endpoints.survival else 0

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that any feature set belongs to, in canonical order."""
        used = {spec.modality for spec in self.features.values()}
        return tuple(m for m in MODALITIES if m in used)


def load_study(source: Path | str | Mapping[str, Any]) -> Study:
    """Return the study that a YAML file, a frozen JSON file or a mapping of its keys describes.

    Raises:
        ConfigError: The file is missing or unreadable, or a key is unknown, missing or wrong.
    """
    if isinstance(source, Mapping):
        return Study.from_mapping(dict(source), where="mapping of a study")
    return Study.from_yaml(Path(source))
