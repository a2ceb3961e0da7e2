"""What the package offers; imported when first used."""

from simulations.arms.simulated_study import simulate_study as simulate_study
from simulations.cohorts.cohort import Cohort as Cohort
from simulations.cohorts.cohort_columns import CohortColumns as CohortColumns
from simulations.cohorts.cohort_table import read_cohort as read_cohort
from simulations.scenario.arm_comparison import ArmComparison as ArmComparison
from simulations.scenario.arm_comparison import compare as compare
from simulations.scenario.scenario import Arm as Arm
from simulations.scenario.scenario import Scenario as Scenario
from simulations.scenario.scenario import load_scenario as load_scenario
from simulations.scenario.scenario_run import run_scenario as run_scenario
from simulations.scenario.scenario_study import load_cohort as load_cohort
from simulations.scenario.simulate import draft_study as draft_study
from simulations.scenario.simulate import simulate as simulate
