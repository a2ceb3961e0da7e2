"""Check the secure sum: exactness, dropouts in every phase, cost in seconds and bytes."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import PrivacyError, RunError
from common.privacy.integer_encoding import IntegerEncoding
from common.secure_sum.server_rounds import OpenedSum, SecureSumServer
from common.secure_sum.site_rounds import SecureSumSite
from common.wire import WireMessage
from simulations.benchmarks.parts.check import Check, Size, at_full_size
from simulations.benchmarks.parts.command import main

DURATION = "about 1 minute"


@dataclass(frozen=True)
class SumSize(Size):
    """So many parameters in the figures of cost."""

    parameters: int = 1_000_000


FULL, MINIATURE = SumSize(seeds=(201, 202, 203)), SumSize(seeds=(201,), parameters=20_000)


@dataclass
class RoundCost:
    """What one round took."""

    agree_s: float
    site_s: float = 0.0
    server_s: float = 0.0
    site_bytes: int = 0


class MaskedGroup:
    """N sites and a server in one process, with agreed keys."""

    def __init__(self, n_sites: int, colluders: int, n_min: int) -> None:
        self.ids = [f"site-{number:03d}" for number in range(n_sites)]
        keys = {name: Ed25519PrivateKey.generate() for name in self.ids}
        roster = {n: key.public_key().public_bytes_raw().hex() for n, key in keys.items()}
        self.sites = {
            name: SecureSumSite(
                name, keys[name], roster, colluders, n_min, run_id="run", study_digest="a" * 64
            )
            for name in self.ids
        }
        self.server = SecureSumServer(self.sites[self.ids[0]].context, roster)
        started = time.perf_counter()
        agreed = self.server.agree([site.advertise() for site in self.sites.values()])
        for site in self.sites.values():
            site.receive_keys(agreed.adverts)
        self.agree_s = (time.perf_counter() - started) / n_sites

    def round(
        self,
        number: int,
        vectors: dict[str, npt.NDArray[np.int64]],
        *,
        lost: Collection[str] = (),
        silent: Collection[str] = (),
    ) -> tuple[OpenedSum, RoundCost]:
        """Return the opened sum of a round and what it cost a site and the server."""
        cost = RoundCost(self.agree_s)
        self.server.start(number, len(next(iter(vectors.values()))), "benchmark")
        present = [name for name in self.ids if name not in lost]
        for name in present:
            with _timed(cost, "site_s", len(present)):
                upload = self.sites[name].masked(number, vectors[name], "benchmark")
            cost.site_bytes = sum(array.nbytes for array in upload.values())
            with _timed(cost, "server_s"):
                self.server.collect(name, upload)
        with _timed(cost, "server_s"):
            asked = self.server.unmask_requests()
        replies = []
        for name in (n for n in asked if n not in silent):
            with _timed(cost, "site_s", len(present)):
                replies.append(self.sites[name].unmask(asked[name]))
        cost.site_bytes += _size(asked[present[0]]) + _size(replies[0])
        with _timed(cost, "server_s"):
            opened = self.server.open(replies)
        return opened, cost


@contextmanager
def _timed(cost: RoundCost, who: str, share: int = 1) -> Iterator[None]:
    """Add the seconds of a block, one of so many alike, to a cost."""
    started = time.perf_counter()
    yield
    setattr(cost, who, getattr(cost, who) + (time.perf_counter() - started) / share)


def checks(data: Path, size: SumSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    yield from _exactness(size)
    yield from _dropouts(size)
    yield from at_full_size(_cost(size))
    yield from at_full_size(_growth(size))


def _exactness(size: SumSize) -> Iterator[Check]:
    worst = 0.0
    for seed in size.seeds:
        dice, group = np.random.default_rng(seed), MaskedGroup(6, 1, 5)
        coder = IntegerEncoding(0.3, 13.9, 10_000, 4, 6)
        floats = {name: dice.normal(0, 3, 10_000) for name in group.ids}
        opened, _ = group.round(1, {name: coder.encode(v) for name, v in floats.items()})
        exact = np.sum(list(floats.values()), axis=0)
        off = np.linalg.norm(coder.decode(opened.total) - exact) / np.linalg.norm(exact)
        worst = max(worst, float(off))
    yield Check("integer sum off the float sum, relative, worst of all seeds", worst, 1e-6, "<=")


def _dropouts(size: SumSize) -> Iterator[Check]:
    """Every number of sites lost in every phase, ten sites, t = 3, n_min = 8."""
    wrong, opened_below, n_min, threshold = 0, 0, 8, 7
    for uploads_lost in range(4):
        for answers_lost in range(4):
            group = MaskedGroup(10, 3, n_min)
            dice = np.random.default_rng(size.seeds[0])
            vectors = {name: dice.integers(-(2**40), 2**40, 500) for name in group.ids}
            lost, rest = group.ids[:uploads_lost], group.ids[uploads_lost:]
            enough = len(rest) >= n_min and len(rest) - answers_lost >= threshold
            try:
                opened, _ = group.round(1, vectors, lost=lost, silent=rest[:answers_lost])
                wrong += not np.array_equal(opened.total, sum(vectors[n] for n in rest))
                opened_below += not enough
            except RunError:
                wrong += enough
    yield Check("wrong sums over dropouts in upload and unmasking, 16 cases", wrong, 0, "==")
    yield Check("rounds opened below n_min or the threshold", opened_below, 0, "==")
    try:
        MaskedGroup(7, 3, 8)
        below = 1
    except PrivacyError:
        below = 0
    yield Check("key agreements that went on with fewer than n_min sites", below, 0, "==")


def _cost(size: SumSize) -> Iterator[Check]:
    site_s, ratio, costs, n = 0.0, 0.0, [], size.parameters
    for seed in size.seeds:
        dice, group = np.random.default_rng(seed), MaskedGroup(10, 3, 8)
        coder = IntegerEncoding(0.3, 13.9, n, 5, 10)
        started = time.perf_counter()
        noised = {name: coder.noised(dice.normal(0, 1, n)) for name in group.ids}
        noise_s = (time.perf_counter() - started) / len(group.ids)
        _, cost = group.round(1, noised, lost=[group.ids[3]], silent=[group.ids[5]])
        site_s = max(site_s, cost.site_s + cost.agree_s + noise_s)
        ratio = max(ratio, cost.site_bytes / (4 * n))
        costs.append(cost.server_s)
    what, note = "10 sites, one lost: ", f"{n:,} parameters"
    yield Check(what + "seconds per site, noise and keys included", site_s, 2.0, "<", note)
    yield Check(what + "bytes per site, in float32 sizes", ratio, 2.2, "<=", note)
    yield Check(what + "seconds of the server", max(costs), 10.0, "<")


def _growth(size: SumSize) -> Iterator[Check]:
    """Twenty sites, two of them lost, against five."""
    seconds = {}
    for n_sites in (5, 20):
        group = MaskedGroup(n_sites, 1, n_sites - 2 if n_sites > 5 else 4)
        zeros = {name: np.zeros(size.parameters // 10, dtype=np.int64) for name in group.ids}
        _, cost = group.round(1, zeros, lost=group.ids[:1])
        seconds[n_sites] = cost.site_s
    what = "seconds per site at 20 sites over those at 5"
    yield Check(what, seconds[20] / seconds[5], 12.0, "<")


def _size(message: WireMessage) -> int:
    header, payload = message.encode()
    return len(header) + len(payload)


if __name__ == "__main__":
    main(__file__)
