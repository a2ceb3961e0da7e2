"""Flower's own FedAvg, and a client app that computes nothing, for comparison.

The client app imports numpy alone, where a real one imports a framework too.
"""

import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Return the model with noise added."""
    random = np.random.default_rng()
    arrays = [
        array + random.standard_normal(array.shape, dtype=np.float32)
        for array in message.content.array_records["arrays"].to_numpy_ndarrays()
    ]
    content = RecordDict(
        {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 10})}
    )
    return Message(content, reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that remembers when each round began."""

    def __init__(self, nodes: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        self.began: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note the time, then continue as FedAvg does."""
        self.began.append(time.monotonic())
        return super().configure_train(server_round, arrays, config, grid)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg; keys of the run configuration: nodes, out, parameters, rounds."""
    config = context.run_config
    nodes, parameters = int(str(config["nodes"])), int(str(config["parameters"]))
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.1)
    random = np.random.default_rng(1)
    model = random.standard_normal(parameters, dtype=np.float32)
    strategy = TimedFedAvg(nodes)
    strategy.start(grid, ArrayRecord([model]), num_rounds=int(str(config["rounds"])))
    times = [*strategy.began, time.monotonic()]
    seconds = [after - before for before, after in itertools.pairwise(times)]
    Path(str(config["out"])).write_text(json.dumps(seconds), encoding="utf-8")
