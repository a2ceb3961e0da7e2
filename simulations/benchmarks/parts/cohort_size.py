"""Choose how much of which scenarios a benchmark runs."""

from dataclasses import dataclass

from common.study.study import TrainingPlan
from simulations.benchmarks.parts.check import Size
from simulations.scenario.scenario import Scenario, load_scenario


@dataclass(frozen=True)
class ScenarioSize(Size):
    """So much of some scenarios.

    Attributes:
        scenarios: Their names.
        folds: Folds per seed; None: as many as the scenario says.
        rounds: Rounds of every arm; None: as many as its plan says.
        draws: Draws of noise per fold and arm.
        workers: Processes; None: one per core.
    """

    scenarios: tuple[str, ...] = ()
    folds: int | None = None
    rounds: int | None = None
    draws: int = 1
    workers: int | None = None

    def scenario(self, name: str) -> Scenario:
        """Return a scenario with the seeds, folds and rounds of this size.

        Raises:
            ConfigError: There is no scenario of that name.
        """
        scenario = load_scenario(name)
        arms = [
            arm.model_copy(update={"training": arm.training and self.plan(arm.training)})
            for arm in scenario.arms
        ]
        folds = scenario.folds.model_copy(update={"count": self.folds or scenario.folds.count})
        changes = {"seeds": list(self.seeds), "folds": folds, "arms": arms}
        return scenario.model_copy(update=changes | {"training": self.plan(scenario.training)})

    def plan(self, plan: TrainingPlan) -> TrainingPlan:
        """Return a training plan with the rounds of this size."""
        return plan.model_copy(update={"rounds": self.rounds or plan.rounds})
