"""Build a consortium in mode distributed whose agents run in this process."""

from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from common.commands.cli_output import Output
from common.ledger.ledger import Ledger, LedgerBudgets
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import with_identities

KEY = bytes(range(32))


def make_study(folder, sites=5, **changes):
    """Five sites: t = 1, n_min = 4, threshold 4; one may be lost in each phase."""
    keys = {
        "privacy": {"mode": "distributed", "epsilon": 8.0, "evaluation": {"release": "dp"}},
        "training": {"rounds": 4, "nominal_patients": 30 * sites, "weight_decay": 0.0},
        "sites": [{"site_id": f"site-{letter}"} for letter in "abcdefghijkl"[:sites]],
    }
    for name, value in changes.items():
        keys[name] = {**keys.get(name, {}), **value}
    return with_identities(tiny_study(**keys), folder / "sites")


def make_agents(study, folder):
    datasets = tiny_datasets(study)
    for site_id in datasets:
        private = folder / "sites" / site_id / "private"
        (private / "split.key").write_text(KEY.hex())
    return {
        site_id: SiteAgent(tiny_policy(study, site_id, folder / "sites"), InMemory(data))
        for site_id, data in datasets.items()
    }


class Flaky:
    """An agent that does not answer some calls; `fails(method, request)` says which."""

    def __init__(self, agent, fails):
        self._agent, self._fails = agent, fails

    def __getattr__(self, method):
        def call(request):
            if self._fails(method, request):
                raise OSError("cable cut")
            return getattr(self._agent, method)(request)

        return call


def run(study, agents, folder):
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True))


def spends(study, site_id, folder):
    policy = tiny_policy(study, site_id, folder / "sites")
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    rounds = [r.entry.round for r in ledger.reservations() if r.entry.partition == "train"]
    assert ledger.epsilon(study.digest(), "train", 1e-5) <= 8.0
    accounts = recompose(read_ledger(policy.ledger), 1e-5, where=policy.site_id)
    assert bool(accounts) == bool(rounds)
    assert all(account.agree for account in accounts)
    return sorted(rounds)
