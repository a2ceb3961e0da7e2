"""The smallest configuration of the benchmark, over real processes."""

import tempfile
from pathlib import Path
from statistics import median

import pytest

from simulations.deployed.our_round import measure_ours
from simulations.deployed.stock_round import measure_secured_stock, measure_stock


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_round_of_two_exchanges_takes_no_longer_than_one_of_stock_fedavg():
    with tempfile.TemporaryDirectory(prefix="tb") as folder:
        ours = measure_ours(Path(folder) / "a", 3, 500, 3)
        stock = measure_stock(Path(folder) / "b", 3, 500, 3)
        secured = measure_secured_stock(Path(folder) / "c", 3, 500, 3)
    assert len(ours.seconds) == len(stock.seconds) == len(secured.seconds) == 3
    assert median(ours.seconds[1:]) <= median(stock.seconds[1:])
    assert median(ours.seconds[1:]) <= median(secured.seconds[1:])
    assert ours.site_bytes > 2 * 4 * 500
    assert {"SuperLink", "SuperNode", "server app", "relay", "agent"} <= set(ours.peak_mib)
    assert {"SuperLink", "SuperNode", "server app", "client app"} <= set(stock.peak_mib)
