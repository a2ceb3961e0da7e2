"""Every benchmark, in miniature, from its beginning to its end."""

import math

import pytest
import torch

from simulations.benchmarks.parts.catalogue import benchmarks


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("benchmark", [pytest.param(b, id=b.name) for b in benchmarks()])
def test_runs_to_its_end(benchmark, request):
    module = benchmark.module
    assert module.FULL != module.MINIATURE
    data = request.getfixturevalue("shared_data") if getattr(module, "NEEDS", ()) else None
    for folder in getattr(module, "NEEDS", ()):
        if not (data / folder).is_dir():
            pytest.skip(f"real data is missing: {folder}")
    checks = [check for check, _ in benchmark.measure(data, miniature=True)]
    assert checks
    assert len({check.what for check in checks}) == len(checks)
    assert all(check.value is not None and math.isfinite(check.value) for check in checks)
    assert [str(check) for check in checks if not check.holds] == []
