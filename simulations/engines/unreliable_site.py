"""Wrap a hospital's agent so that it is absent, late, or lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from common.protocol.protocol import METHODS, AgentApi, TrainReply, TrainRequest
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort
from simulations.engines.circumstances import Circumstances, Poison, poisoned_site, silent_sites
from simulations.engines.local_grid import Silence


@dataclass(frozen=True)
class UnreliableSite:
    """Passes every call to a real agent, but for what its circumstances do to training.

    Attributes:
        agent: The hospital's agent.
        site_id: Its hospital.
        sites: All hospitals, so that not all are silent at once.
        met: What it lives with.
        lies: Whether this is the poisoned site.
        seed: Seed of the cell.
    """

    agent: AgentApi
    site_id: str
    sites: tuple[str, ...]
    met: Circumstances
    lies: bool
    seed: int

    def train(self, request: TrainRequest) -> TrainReply:
        """Return the agent's reply, a false one, or none.

        Raises:
            Silence: The site is absent or late in this round.
        """
        if self._is_silent(request.round, self.met.dropout, "dropout"):
            raise Silence
        reply = self.agent.train(request)
        if self._is_silent(request.round, self.met.straggle, "straggle"):
            raise Silence
        if self.lies and self.met.poison is not None:
            arrays = poisoned(reply.arrays, self.met.poison)
            return reply.model_copy(update={"arrays": arrays})
        return reply

    def __getattr__(self, method: str) -> Any:
        """Pass every other call on."""
        if method not in METHODS:
            raise AttributeError(method)
        return getattr(self.agent, method)

    def _is_silent(self, number: int, share: float, what: str) -> bool:
        silent = silent_sites(self.sites, share, seed=self.seed, round=number, what=what)
        return self.site_id in silent


def poisoned(arrays: Arrays, poison: Poison) -> Arrays:
    """Return what the poisoned site sends instead of its update."""
    if poison.kind == "labels":
        return arrays
    if poison.kind == "nan":
        return {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    factor = np.float32(poison.factor if poison.kind == "scale" else -poison.factor)
    return {name: factor * array for name, array in arrays.items()}


def unreliable(
    agents: Mapping[str, AgentApi], groups: Mapping[str, Cohort], setup: Circumstances, seed: int
) -> dict[str, AgentApi]:
    """Return the agents as the server meets them under these circumstances."""
    liar = None if setup.poison is None else poisoned_site(groups, setup.poison)
    sites = tuple(sorted(agents))
    return {
        site: cast(AgentApi, UnreliableSite(agent, site, sites, setup, site == liar, seed))
        for site, agent in agents.items()
    }
