"""Show a problem on a live page: what is wrong, and what to do about it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from common.error_guide import guide_of
from common.errors import TumorboardError

Weight = Literal["stops", "warns", "notes"]
Read = TypeVar("Read")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        weight: `stops` the work, `warns` of what may stop it, or `notes` what passed.
        what: What is wrong.
        cure: What to do; commands are in backticks.
        code: Stable code, if it has one.
        where: Site, round or file it concerns.
    """

    weight: Weight
    what: str
    cure: str
    code: str | None = None
    where: str = ""

    @property
    def kind(self) -> str:
        """The problem without its counts: the same as long as it only lasts."""
        return f"{self.where} {self.code} {re.sub('[0-9]+', '', self.what)}"

    @classmethod
    def of_code(cls, code: str, *, weight: Weight, where: str, what: str = "") -> "Problem":
        """Return the problem of a code, with the handbook's text and fix."""
        guide = guide_of(code)
        return cls(weight, what or guide.happened, guide.cure, code, where)

    @classmethod
    def of_error(cls, error: TumorboardError, *, weight: Weight) -> "Problem":
        """Return an error as a problem, with its own fix or the handbook's."""
        cure = error.cure or guide_of(str(error.code)).cure
        return cls(weight, error.what, cure, str(error.code), error.where)


def attempt(
    read: Callable[[], Read],
    problems: list[Problem],
    *,
    weight: Weight,
    cure: str,
    what: str = "A file cannot be read",
) -> Read | None:
    """Return what `read` returns; None if it fails, which then stands among the problems.

    Args:
        read: Reads something for a page.
        problems: Takes the problem.
        weight: Of the problem.
        cure: What to do where the system refuses the file; other errors bring their own.
        what: What the system refused.
    """
    try:
        return read()
    except TumorboardError as error:
        problems.append(Problem.of_error(error, weight=weight))
    except OSError as error:
        problems.append(Problem(weight, f"{what}: {error.strerror}.", cure))
    return None


def by_weight(problems: list[Problem]) -> list[Problem]:
    """Return the problems, the heaviest first, otherwise in their order."""
    order = {"stops": 0, "warns": 1, "notes": 2}
    return sorted(problems, key=lambda problem: order[problem.weight])
