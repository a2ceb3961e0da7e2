"""Learning curve: size of the model's change and, in mode none, the training loss by round."""

from __future__ import annotations

from collections.abc import Sequence

from server.checkpoint import RoundRecord
from server.report.svg import BLUE, ORANGE, figure, to_svg


def learning_svg(history: Sequence[RoundRecord]) -> str:
    """Return the figure; two panels where losses are known."""
    rounds = [record.round for record in history]
    losses = [(record.round, record.loss) for record in history if record.loss is not None]
    with figure(7.2, 2.7) as made:
        axes = made.subplots(1, 2 if losses else 1, squeeze=False)[0]
        axes[0].plot(rounds, [record.update_norm for record in history], color=BLUE, lw=1.5)
        axes[0].set_title("Change of the global model")
        axes[0].set_ylabel("L2 norm")
        if losses:
            axes[1].plot(*zip(*losses, strict=True), color=ORANGE, lw=1.5)
            axes[1].set_title("Mean training loss")
        for axis in axes:
            axis.set_xlabel("round")
            axis.set_ylim(bottom=0)
        label = f"Learning curve over {len(rounds)} rounds"
        return to_svg(made, name="learning", label=label)
