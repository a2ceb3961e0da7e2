"""Learning curves: change of the model, training loss in mode none, and who answered, by round."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from server.report.svg import BLUE, GREEN, ORANGE, WIDTH, figure, to_svg
from server.session.checkpoint import RoundRecord


def learning_svg(history: Sequence[RoundRecord], n_sites: int) -> str:
    """Return the figure; a loss panel where losses are known.

    Args:
        history: One record a round.
        n_sites: Sites on the roster.
    """
    rounds = [record.round for record in history]
    losses = [(record.round, record.loss) for record in history if record.loss is not None]
    with figure(WIDTH, 4.2 if losses else 2.2) as made:
        grid = made.subplots(2 if losses else 1, 2, squeeze=False)
        axes: list[Axes] = list(grid.ravel())
        if losses:
            axes.pop().set_visible(False)
        axes[0].plot(rounds, [record.update_norm for record in history], color=BLUE, lw=1.5)
        axes[0].set_title("Change of the model")
        axes[0].set_ylabel("L2 norm")
        if losses:
            axes[1].plot(*zip(*losses, strict=True), color=ORANGE, lw=1.5)
            axes[1].set_title("Mean training loss")
        answered = [len(record.sites) for record in history]
        axes[-1].step(rounds, answered, color=GREEN, lw=1.5, where="mid")
        axes[-1].set_title("Hospitals that counted")
        axes[-1].set_yticks(range(0, n_sites + 1, max(1, n_sites // 5)))
        axes[-1].set_ylim(0, n_sites + 0.4)
        for axis in axes:
            axis.set_xlabel("round")
            axis.set_ylim(bottom=0)
        label = f"Learning curve over {len(rounds)} rounds"
        return to_svg(made, name="learning", label=label)
