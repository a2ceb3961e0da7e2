"""Choose t, n_min and the threshold of the secure sum: tolerated colluders and dropouts.

Each site adds 1/(n_min - t) of the noise variance, so the noise is whole after t colluders have
taken theirs away and all but n_min sites are lost. The threshold of the secure sum is more than
(N + t)/2: two disjoint groups of honest sites can then never both receive a different list of
survivors and believed.
"""

from dataclasses import dataclass

from common.errors import PrivacyError
from common.privacy.plan import PrivacyPlan


def threshold(n_sites: int, colluders: int) -> int:
    """Return the fewest of so many sites that are more than (N + t)/2."""
    return (n_sites + colluders) // 2 + 1


@dataclass(frozen=True)
class Collusion:
    """Checked numbers of one consortium in mode distributed.

    Attributes:
        n_sites: N sites that agreed on keys.
        colluders: t sites that may give their secrets to the server.
        n_min: Fewest sites whose sum is opened.
    """

    n_sites: int
    colluders: int
    n_min: int

    def __post_init__(self) -> None:
        if self.n_sites < 3:
            raise PrivacyError(
                f"{self.n_sites} sites cannot sum in secret",
                why="each would learn the other's part by subtracting its own",
                cure="use privacy mode 'local', or admit a third site",
            )
        if self.colluders < 1:
            raise PrivacyError(
                "t = 0 colluders is not a promise",
                why="every site knows its own share of the noise",
                cure="leave privacy.colluders out, or set at least 1",
            )
        if self.threshold > self.n_sites:
            raise PrivacyError(
                f"t = {self.colluders} colluders are too many for {self.n_sites} sites",
                why="more than (N + t)/2 sites must agree on who survived, and there are only N",
                cure="leave privacy.colluders out for the default, or admit more sites",
            )
        if not self.threshold <= self.n_min <= self.n_sites:
            raise PrivacyError(
                f"n_min = {self.n_min} does not work for {self.n_sites} sites and "
                f"t = {self.colluders}",
                why=f"it must lie within {self.threshold} and {self.n_sites}: more than (N + t)/2 "
                "sites must agree on who survived",
                cure="leave privacy.n_min out for the default",
            )

    @classmethod
    def of_plan(cls, plan: PrivacyPlan, n_sites: int) -> "Collusion":
        """Return the numbers of a study: its own, or the defaults.

        t = max(1, (N - 1) // 3); n_min = N - N // 5, at least the threshold.

        Raises:
            PrivacyError: The numbers do not work.
        """
        colluders = max(1, (n_sites - 1) // 3) if plan.colluders is None else plan.colluders
        default = max(n_sites - n_sites // 5, threshold(n_sites, colluders))
        own = plan.n_min if plan.groups == 1 else None  # a group's; see `of_groups`
        return cls(n_sites, colluders, default if own is None else own)

    @classmethod
    def of_groups(cls, plan: PrivacyPlan, n_sites: int) -> "Collusion":
        """Return the numbers of one round's sum: of the smallest group if there are groups.

        Defaults as in `of_plan`, from the size of the smallest group; n_min is at least the
        threshold of the largest, and leaves room for a lost site where it can. Each group's sum
        is its own secure sum: t colluders and n_min count its members alone. A promise about t
        colluding sites of the whole roster holds too, whatever groups they fall into.

        Raises:
            PrivacyError: The numbers do not work, or the groups are too small for n_min.
        """
        if plan.groups == 1:
            return cls.of_plan(plan, n_sites)
        smallest, largest = n_sites // plan.groups, -(-n_sites // plan.groups)
        colluders = max(1, (smallest - 1) // 3) if plan.colluders is None else plan.colluders
        default = max(smallest - max(1, smallest // 5), threshold(largest, colluders))
        n_min = default if plan.n_min is None else plan.n_min
        if n_min > smallest or smallest < 3:
            raise PrivacyError(
                f"{plan.groups} groups of at least {max(n_min, 3)} sites need "
                f"{plan.groups * max(n_min, 3)}, the roster has {n_sites}",
                why="a group's sum of fewer sites would not be opened",
                cure="lower privacy.groups or privacy.n_min, or leave privacy.groups out",
            )
        cls(largest, colluders, n_min)
        return cls(smallest, colluders, n_min)

    @property
    def threshold(self) -> int:
        """Shares that open a secret, and sites that must agree on a list of survivors."""
        return threshold(self.n_sites, self.colluders)

    @property
    def shares(self) -> int:
        """Number n_min - t of honest shares that make up the designed noise."""
        return self.n_min - self.colluders
