"""Train a study over hospitals in memory, through real agents, server and Flower apps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.commands.cli_output import Output
from common.metrics.tables.predictions import Predictions
from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort
from simulations.engines.circumstances import Circumstances
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import memory_agents, own_models, with_identities
from simulations.engines.unreliable_site import unreliable
from simulations.trials.exact_evaluation import predict_cohort

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        study: What was agreed on.
        arrays: The global model.
        own: Site -> the model it uses itself, where sites keep something for themselves.
    """

    study: Study
    arrays: Arrays
    own: dict[str, Arrays]

    def predict(self, cohort: Cohort, site: str = "") -> Predictions:
        """Return predictions by the model that `site` uses; by the global one without a site."""
        return predict_cohort(self.study, self.own.get(site, self.arrays), cohort)

    def scores(self, cohort: Cohort, site: str = "") -> tuple[FloatArray, FloatArray]:
        """Return (risk, probability of response) of patients, by the model that `site` uses."""
        predictions = self.predict(cohort, site)
        return predictions.risk, predictions.response_prob


def train_in_memory(
    study: Study,
    groups: Mapping[str, Cohort],
    folder: Path,
    *,
    setup: Circumstances | None = None,
    seed: int = 0,
    output: Output | None = None,
) -> Trained:
    """Train, or continue training, a study; every hospital consents to it as it stands.

    Args:
        study: The study; in mode distributed identities are made for its sites.
        groups: Site -> its patients.
        folder: For the state of run and sites; a killed run continues from there.
        setup: What the sites live with; only silence and a lying site matter here.
        seed: Seed of those circumstances.
        output: Where progress is shown; nowhere by default.

    Raises:
        RunError: The run failed.
    """
    if study.privacy.mode == "distributed":
        study = with_identities(study, folder / "sites")
    agents = memory_agents(study, groups, folder / "sites")
    if setup is not None and (setup.has_silence or setup.poison is not None):
        agents = unreliable(agents, groups, setup, seed)
    run = run_in_process(study, agents, folder / "run", output=output or Output(json_mode=True))
    own = own_models(study, groups, folder / "sites", run.run_id, run.arrays)
    return Trained(study, run.arrays, own)
