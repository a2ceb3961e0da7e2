import pytest

from simulations.benchmarks.evaluation.evaluation_error import (
    federate,
    response_checks,
    survival_checks,
)
from simulations.benchmarks.parts.evaluation_cohorts import ncctg_lung, nsclc_radiomics


@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore")
def test_tables_of_real_hospitals_equal_the_pooled_rows(shared_data):
    cohort = ncctg_lung(shared_data)
    failed = [str(c) for c in survival_checks(cohort, federate(cohort)) if not c.holds]
    assert not failed


@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore")
def test_response_tables_of_real_hospitals_equal_the_pooled_rows(shared_data):
    cohort = nsclc_radiomics(shared_data)
    failed = [str(c) for c in response_checks(cohort, federate(cohort)) if not c.holds]
    assert not failed
