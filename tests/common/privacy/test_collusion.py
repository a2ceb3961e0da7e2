import pytest

from common.errors import PrivacyError
from common.privacy.collusion import Collusion
from common.privacy.plan import PrivacyPlan


@pytest.mark.parametrize("n_sites", range(3, 60))
def test_defaults_work_for_every_size(n_sites: int) -> None:
    numbers = Collusion.of_plan(PrivacyPlan(), n_sites)
    assert numbers.colluders == max(1, (n_sites - 1) // 3)
    assert numbers.shares >= 1
    # two disjoint groups of honest sites cannot both reach the threshold with the colluders' help
    honest = n_sites - numbers.colluders
    assert 2 * (numbers.threshold - numbers.colluders) > honest
    assert numbers.threshold <= numbers.n_min <= n_sites


@pytest.mark.parametrize(
    ("n_sites", "colluders", "n_min"),
    [(2, 1, 2), (1, 1, 1), (6, 0, 6), (6, 1, 3), (6, 1, 7), (6, 5, 5), (3, 1, 2)],
)
def test_numbers_that_break_the_promise_are_refused(
    n_sites: int, colluders: int, n_min: int
) -> None:
    with pytest.raises(PrivacyError) as caught:
        Collusion(n_sites, colluders, n_min)
    assert caught.value.why


def test_too_many_colluders_are_named_as_the_reason() -> None:
    with pytest.raises(PrivacyError, match="t = 5 colluders are too many for 3 sites"):
        Collusion.of_plan(PrivacyPlan(colluders=5), 3)
