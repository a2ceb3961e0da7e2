"""A trunk fitted on public cohorts predicts patients it has never seen."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from common.errors import DataError
from simulations.cohorts.public_fits import COX_PENALTY, PublicPatients, fit_trunk

TRUTH = np.array([0.8, -0.6, 0.0, 0.3])


def draw(seed, n=300, shift=0.0, response=True):
    """Patients of one disease: its own baseline, the same direction of risk and response."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) + shift
    time = rng.exponential(30 * np.exp(-(x - shift) @ TRUTH))
    censored = rng.exponential(40, n)
    labels = (rng.random(n) < 1 / (1 + np.exp((x - shift) @ TRUTH))).astype(float)
    return PublicPatients(
        inputs=x,
        time_months=np.minimum(time, censored),
        event=(time <= censored).astype(float),
        response=labels if response else np.full(n, np.nan),
    )


def test_scores_follow_the_shared_signal_and_not_the_baseline_of_a_cohort():
    trunk = fit_trunk({"a": draw(1), "b": draw(2, shift=2.0)})
    assert trunk.tasks == ("survival", "response")
    new = draw(3)
    scores = trunk.apply(new.inputs)
    assert scores.dtype == np.float32
    assert np.corrcoef(scores[:, 0], new.inputs @ TRUTH)[0, 1] > 0.95
    assert np.corrcoef(scores[:, 1], new.inputs @ TRUTH)[0, 1] < -0.95
    for cohort in (draw(1), draw(2, shift=2.0)):
        assert 0.8 < (cohort.inputs @ trunk.weights.T).std(axis=0)[0] < 1.2


def test_survival_weights_are_those_of_a_stratified_cox_model():
    cohorts = {"a": draw(1), "b": draw(2)}
    frames = []
    for name, patients in cohorts.items():
        frame = pd.DataFrame(patients.inputs, columns=list("wxyz"))
        frames.append(frame.assign(t=patients.time_months, e=patients.event, s=name))
    fitter = CoxPHFitter(penalizer=COX_PENALTY).fit(pd.concat(frames), "t", "e", strata=["s"])
    theirs = fitter.params_.to_numpy()
    ours = fit_trunk(cohorts).weights[0]
    np.testing.assert_allclose(ours / np.linalg.norm(ours), theirs / np.linalg.norm(theirs))


def test_a_task_without_public_labels_has_no_score():
    trunk = fit_trunk({"a": draw(1, response=False), "b": draw(2, response=False)})
    assert trunk.tasks == ("survival",)
    assert trunk.apply(draw(3).inputs).shape == (300, 1)


def test_too_few_public_patients_are_refused():
    with pytest.raises(DataError, match="public patients"):
        fit_trunk({"a": draw(1, n=30)})


def test_scores_are_bounded():
    trunk = fit_trunk({"a": draw(1), "b": draw(2)})
    assert np.abs(trunk.apply(100 * draw(3).inputs)).max() == 3.0
