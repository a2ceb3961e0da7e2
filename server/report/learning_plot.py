"""Draw what happened round by round: change of the model, training loss, who answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from server.report.svg import BLUE, GREEN, ORANGE, new_axes
from server.session.checkpoint import RoundRecord

Quantity = Literal["update_norm", "loss", "sites"]


def plot_learning(
    history: Sequence[RoundRecord],
    quantity: Quantity = "update_norm",
    *,
    n_sites: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one quantity by round.

    Args:
        history: One record per round.
        quantity: L2 norm of the model's change, mean training loss (mode none), or the number of
            hospitals whose update counted.
        n_sites: Hospitals on the roster, the top of the axis of `sites`.
        ax: Where to draw; a new figure by default.
    """
    ax = ax or new_axes(4.2, 2.6)[0]
    rounds = [record.round for record in history]
    if quantity == "sites":
        answered = [len(record.sites) for record in history]
        most = n_sites or max(answered, default=1)
        ax.step(rounds, answered, color=GREEN, lw=1.5, where="mid")
        ax.set_title("Hospitals that counted")
        ax.set_yticks(range(0, most + 1, max(1, most // 5)))
        ax.set_ylim(0, most + 0.4)
    elif quantity == "loss":
        known = [(record.round, record.loss) for record in history if record.loss is not None]
        ax.plot([number for number, _ in known], [loss for _, loss in known], color=ORANGE, lw=1.5)
        ax.set_title("Mean training loss")
    else:
        ax.plot(rounds, [record.update_norm for record in history], color=BLUE, lw=1.5)
        ax.set_title("Change of the model")
        ax.set_ylabel("L2 norm")
    ax.set_xlabel("round")
    ax.set_ylim(bottom=0)
    return ax
