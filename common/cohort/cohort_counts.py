"""Count a hospital's patients at each step; sent out under release `internal` only.

Exact counts, not differentially private, like the tables they travel with.
"""

from typing import Annotated

from pydantic import Field

from common.contract import Contract
from common.study.study import Task

Count = Annotated[int, Field(ge=0, le=1_000_000)]


class CohortCounts(Contract):
    """The data funnel of one hospital.

    Attributes:
        listed: Patients in the manifest.
        labelled: Of these, with at least one outcome of the study.
        usable: Of these, with at least one feature set: who takes part.
        train: Usable patients who train.
        held_out: Usable patients who are only evaluated on.
        observed: Task -> usable patients with that outcome.
        present: Feature set -> usable patients who have it.
    """

    listed: Count
    labelled: Count
    usable: Count
    train: Count
    held_out: Count
    observed: dict[Task, Count]
    present: dict[str, Count]
