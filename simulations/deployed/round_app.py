"""Server app of the benchmark: timed rounds of two exchanges over the real link."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.protocol.protocol import TrainRequest
from common.secure_sum.messages import UnmaskRequest
from common.storage.atomic_file import write_text
from common.wire import arrays_digest
from server.flower.grid_link import GridLink

DEADLINE_S = 600.0
PER_ARRAY = 1_000_000
"""Numbers in one array; larger models are sent as several."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run rounds; keys of the run configuration: roster, out, parameters, rounds."""
    config = context.run_config
    roster = json.loads(Path(str(config["roster"])).read_text(encoding="utf-8"))
    link = GridLink(grid, roster)
    while len(link.site_ids()) < len(roster):
        time.sleep(0.1)
    seconds = [
        one_round(link, sorted(roster), number, int(str(config["parameters"])))
        for number in range(1, int(str(config["rounds"])) + 1)
    ]
    write_text(Path(str(config["out"])), json.dumps(seconds))


def one_round(link: GridLink, sites: list[str], number: int, parameters: int) -> float:
    """Return the seconds of one round: the model out, as much back, then a second exchange.

    Raises:
        RuntimeError: A site did not answer.
    """
    random = np.random.default_rng(number)
    arrays = {
        f"heads.{start}": random.standard_normal(
            min(PER_ARRAY, parameters - start), dtype=np.float32
        )
        for start in range(0, parameters, PER_ARRAY)
    }
    start_time = time.monotonic()
    request = TrainRequest(run_id="bench", round=number, model_digest=arrays_digest(arrays))
    request = request.model_copy(update={"arrays": arrays})
    uploads = link.exchange("train", dict.fromkeys(sites, request), deadline_s=DEADLINE_S)
    if any(not getattr(reply, "arrays", None) for reply in uploads.values()) or set(uploads) != set(
        sites
    ):
        raise RuntimeError("a site did not answer")
    shares = random.integers(0, 256, (len(sites), 33 * len(sites) + 28), dtype=np.uint8)
    unmask = UnmaskRequest(run_id="bench", session=1, round=number, survivors=sites)
    unmask = unmask.model_copy(update={"arrays": {"sealed_shares": shares}})
    link.exchange("unmask", dict.fromkeys(sites, unmask), deadline_s=DEADLINE_S)
    return time.monotonic() - start_time
