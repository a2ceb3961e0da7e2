"""Site agent without data: answers every round with random numbers of the requested size.

It stands in for the real agent where only the transport is measured. Random, since Flower sends
equal objects once.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from client.agent.service import serve
from client.site.identity import load_identity
from common.protocol.protocol import StatusReply, StatusRequest, TrainReply, TrainRequest
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.trust.site_proof import prove


class PayloadAgent:
    """Sends back as many random numbers as it was sent, of the same types.

    Args:
        site_id: The site.
        identity_key: Its identity.
    """

    def __init__(self, site_id: str, identity_key: Path) -> None:
        self._site_id, self._identity = site_id, load_identity(identity_key)
        self._random = np.random.default_rng()

    def status(self, request: StatusRequest) -> StatusReply:
        """Prove to be the site."""
        proof = prove(self._identity, self._site_id, request.challenge or "0" * 64)
        return StatusReply(site_id=self._site_id, state="idle", proof=proof)

    def train(self, request: TrainRequest) -> TrainReply:
        """Return random numbers in the shapes of the request."""
        reply = TrainReply(
            site_id=self._site_id,
            run_id=request.run_id,
            round=request.round,
            model_digest=request.model_digest,
            kind="delta",
        )
        arrays = {
            name: self._random.standard_normal(array.shape, dtype=np.float32)
            for name, array in request.arrays.items()
        }
        return reply.model_copy(update={"arrays": arrays})

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Return random bytes of the size of an answer."""
        n = len(request.survivors)
        shapes = {"sealed": (64,), "covered": (n, 33), "tokens": (n, 33)}
        arrays = {
            name: self._random.integers(0, 256, shape, dtype=np.uint8)
            for name, shape in shapes.items()
        }
        reply = UnmaskReply(
            site_id=self._site_id,
            run_id=request.run_id,
            session=request.session,
            round=request.round,
            list_digest="0" * 64,
        )
        return reply.model_copy(update={"arrays": arrays})


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m simulations.deployed.payload_agent")
    parser.add_argument("--site", required=True)
    parser.add_argument("--identity", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args()
    agent: Any = PayloadAgent(options.site, options.identity)  # what is not asked has no answer
    serve(agent, options.socket)


if __name__ == "__main__":
    main()
