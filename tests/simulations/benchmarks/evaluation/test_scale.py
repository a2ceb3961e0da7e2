from simulations.benchmarks.evaluation import scale
from simulations.benchmarks.evaluation.scale import Cost, growth_checks


def growth(seconds, megabytes):
    costs = {n: Cost(seconds(n), seconds(n), megabytes(n)) for n in scale.FULL.sites}
    return [check.holds for check in growth_checks(costs)]


def test_linear_growth_holds_and_quadratic_growth_does_not():
    assert growth(lambda n: 0.01 * n, lambda n: 400 + 0.8 * n) == [True, True, True]
    assert growth(lambda n: 0.001 * n**2, lambda n: 400 + 0.8 * n) == [False, True, True]
    assert growth(lambda n: 0.01 * n, lambda n: 400 + 0.02 * n**2) == [True, True, False]


def test_a_small_federation_and_its_plain_loop_are_measured():
    whole, plain = scale.federated_cost(3, "local", 5), scale.plain_cost(3, 5)
    assert min(whole.seconds, whole.cpu_s, plain.seconds, plain.cpu_s) > 0
    assert min(whole.peak_mb, plain.peak_mb) > 50
