import numpy as np
import pandas as pd
import pytest

from simulations.comparison.arm_metrics import arm_scores, hospital_metrics, tidy
from simulations.comparison.comparison import cell_metrics


def predictions():
    rng = np.random.default_rng(0)
    frames = []
    for arm in ("one", "two"):
        for seed in (0, 1):
            frame = pd.DataFrame(
                {
                    "patient_id": [f"p{i}" for i in range(90)],
                    "hospital": ["a"] * 60 + ["b"] * 26 + ["c"] * 4,
                    "time_months": np.linspace(1, 50, 90),
                    "event": (np.arange(90) % 2).astype(float),
                    "response": np.nan,
                    "risk": rng.normal(size=90),
                    "response_prob": np.nan,
                }
            )
            frames.append(frame.assign(arm=arm, seed=seed, fold=np.arange(90) % 2))
    return pd.concat(frames, ignore_index=True)


def test_a_hospital_is_scored_by_seed_and_averaged():
    table = predictions()
    found = hospital_metrics(table).set_index(["arm", "hospital"])
    own = table[(table["arm"] == "one") & (table["hospital"] == "a")]
    by_hand = np.mean([arm_scores(part)["c_index"] for _, part in own.groupby("seed")])
    assert found.loc[("one", "a"), "c_index"] == pytest.approx(by_hand)
    assert found.loc[("one", "a"), "n_patients"] == 60
    assert np.isnan(found.loc[("one", "c"), "c_index"])  # two deaths are no figure
    assert found["response_auc"].isna().all()


def test_tidy_table_has_one_row_a_figure_and_empty_keys_where_they_do_not_apply():
    table = predictions()
    cells, hospitals = cell_metrics(table), hospital_metrics(table)
    long = tidy(cells, hospitals, "made")
    assert list(long.columns) == ["scenario", "arm", "seed", "fold", "hospital", "metric", "value"]
    assert len(long) == 6 * len(cells) + 3 * len(hospitals)
    assert long["hospital"].isna().sum() == 6 * len(cells)
    assert not long.duplicated(["arm", "seed", "fold", "hospital", "metric"]).any()
