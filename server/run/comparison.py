"""Two models on the same held-out patients, across sites, from joint tables.

Both models were evaluated before, so their score cuts are known; the sites cross-tabulate both
scores with the outcome. Exact tables only: under release `dp` there is no comparison, and no
pretence of one from two intervals.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.metrics.summaries.paired import Comparison, compare, compare_within_sites
from common.protocol.evaluation_request import grid_fields, join_pair
from common.protocol.protocol import EvaluateRequest
from common.wire import Arrays
from server.exchange.secure_rounds import SecureRounds
from server.run.evaluation import (
    Evaluation,
    ask_phase,
    load_evaluation,
    models_digest,
    store_evaluation,
)
from server.session.session import RunSession


def compare_models(
    session: RunSession,
    first: tuple[Evaluation, Mapping[str, Arrays]],
    second: tuple[Evaluation, Mapping[str, Arrays]],
    *,
    sums: SecureRounds | None = None,
    personal: bool = False,
) -> dict[str, Comparison]:
    """Return second minus first model by headline metric; empty where tables carry noise.

    Args:
        session: An open run whose sites are enrolled.
        first: Evaluation of one model, and the model by site.
        second: Evaluation of another of the same architecture, and the model by site.
        sums: Secure sums of the run, in mode distributed.
        personal: The second model is every site's personal one. Such scores share no scale over
            sites, so differences are then taken inside each.

    Raises:
        RunError: Too few sites send tables in every attempt.
    """
    one, two = first[0], second[0]
    if one.grid.release != "internal":
        return {}
    pairs = {
        site: join_pair(first[1][site], second[1][site])
        for site in session.state.enrolled
        if site in first[1] and site in second[1]
    }
    request = EvaluateRequest(
        run_id=session.state.run_id,
        round=0,
        model_digest="",
        label=f"{two.label}_vs_{one.label}",
        release="internal",
        phase="paired",
        personal=personal,
        second_cuts=grid_fields(two.grid)["score_cuts"],
    ).model_copy(update={**grid_fields(one.grid)})
    folder, digest = session.run_dir / "evaluation" / request.label, models_digest(pairs)
    found = load_evaluation(session.study, folder, digest)
    if found is None:
        found = ask_phase(session, pairs, request, sums)
        store_evaluation(folder, request, found, digest)
    if personal:
        return compare_within_sites(found.tables, found.grid)
    return compare(list(found.tables.values()), found.grid)
