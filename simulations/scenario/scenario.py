"""Declare a scenario: a public cohort cut into hospitals, folds, seeds and the arms to compare."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from common.contract import Contract
from common.errors import ConfigError
from common.privacy.plan import PrivacyPlan
from common.study.study import Endpoints, Identifier, ModelSpec, TrainingPlan
from simulations.engines.circumstances import Circumstances

ArmKind = Literal["federated", "pooled", "local_only", "leave_one_out", "clinical_floor"]
"""`leave_one_out`: patients of each hospital are predicted by a model of all other hospitals."""


class TcgaSource(Contract):
    """One TCGA cohort; features are public principal components."""

    kind: Literal["tcga"] = "tcga"
    name: str
    components: int = Field(default=16, gt=0)
    trunk: bool = Field(default=False, description="also public scores of the other cohorts")


class FedTcgaBrcaSource(Contract):
    """FLamby's Fed-TCGA-BRCA: 39 clinical columns, six regions."""

    kind: Literal["fed_tcga_brca"] = "fed_tcga_brca"
    standardise_age: bool = True


class GivenSource(Contract):
    """A cohort that the caller holds, such as a table; its digest stands for its contents."""

    kind: Literal["given"] = "given"
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="`Cohort.digest()`")


class HospitalRule(Contract):
    """What happens to hospitals with few patients."""

    minimum: int = Field(default=20, gt=0)
    rest: Literal["pool", "region", "hold_out"] = "pool"


class Folds(Contract):
    """How patients are held out.

    `within_hospital`: every hospital trains on 4/5 of its patients, balanced by outcome.
    `whole_hospital`: whole hospitals are held out, which asks whether a model travels.
    """

    count: int = Field(default=5, ge=2)
    rule: Literal["within_hospital", "whole_hospital"] = "within_hospital"


class Arm(Contract):
    """One way to train; what is left out is taken from the scenario."""

    name: Identifier
    kind: ArmKind = "federated"
    features: list[str] | None = Field(default=None, description="feature sets; all by default")
    model: ModelSpec | None = None
    training: TrainingPlan | None = None
    privacy: PrivacyPlan | None = None
    circumstances: Circumstances = Circumstances()

    @property
    def special(self) -> str:
        """Where the arm departs from its scenario, as one line of YAML; empty if nowhere."""
        own = self.model_dump(mode="json", exclude_unset=True, exclude={"name", "kind"})
        flow = yaml.safe_dump(own, default_flow_style=True, sort_keys=False, width=10_000)
        return flow.strip()[1:-1]

    @model_validator(mode="after")
    def _check(self) -> Self:
        circumstances = self.circumstances
        active = circumstances.has_silence or circumstances.poison is not None
        if active and self.kind != "federated":
            raise ValueError(f"arm '{self.name}': absent or lying sites need kind: federated")
        return self


class Scenario(Contract):
    """Everything that decides the table of a comparison; its digest names the results."""

    name: Identifier
    title: str = ""
    cohort: Annotated[TcgaSource | FedTcgaBrcaSource | GivenSource, Field(discriminator="kind")]
    hospitals: HospitalRule = HospitalRule()
    features: list[str] = Field(min_length=1)
    endpoints: Endpoints
    model: ModelSpec = ModelSpec(name="linear")
    training: TrainingPlan = TrainingPlan()
    folds: Folds = Folds()
    seeds: list[int] = Field(default=[0], min_length=1)
    reference: Identifier = Field(description="arm the others are compared with")
    arms: list[Arm] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError("arms: every name must be unique")
        if self.reference not in names:
            raise ValueError(f"reference '{self.reference}' is not an arm; arms: {names}")
        return self

    @property
    def needed_features(self) -> list[str]:
        """Feature sets that at least one arm reads, sorted."""
        return sorted({name for arm in self.arms for name in arm.features or self.features})

    def with_arms(self, names: list[str]) -> "Scenario":
        """Return the scenario with these arms only; the reference is always kept.

        Raises:
            ConfigError: There is no such arm.
        """
        unknown = sorted(set(names) - {arm.name for arm in self.arms})
        if unknown:
            raise ConfigError(
                f"scenario '{self.name}' has no arm {', '.join(unknown)}",
                cure=f"choose among: {', '.join(arm.name for arm in self.arms)}",
            )
        arms = [arm for arm in self.arms if arm.name in {*names, self.reference}]
        return self.model_copy(update={"arms": arms})


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Return a scenario, given a YAML file or the name of a shipped one.

    Raises:
        ConfigError: There is no such file or shipped scenario, or the file is wrong.

    Example:
        >>> load_scenario("tcga_luad").reference
        'pooled'
    """
    path = Path(name_or_path)
    if path.is_file():
        return Scenario.from_yaml(path)
    file_of = {file.stem: file for file in shipped_scenarios()}
    if path.stem in file_of:
        return Scenario.from_yaml(file_of[path.stem])
    raise ConfigError(
        f"no scenario '{name_or_path}'",
        where=str(name_or_path),
        cure=f"give a YAML file, or one of: {', '.join(sorted(file_of))}",
    )


def shipped_scenarios() -> list[Path]:
    """Return the scenario files that come with the package."""
    return sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
