import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from sklearn.linear_model import LogisticRegression

from simulations.cohorts.cohort import Cohort
from simulations.trials import clinical_floor


def data(seed=0, n=200):
    generator = np.random.default_rng(seed)
    x = pd.DataFrame({"age": generator.normal(60, 10, n), "stage": generator.integers(1, 5, n)})
    risk = 0.05 * (x["age"] - 60) + 0.5 * x["stage"]
    death = generator.exponential(40 * np.exp(-risk + risk.mean()))
    censor = generator.uniform(5, 80, n)
    time, event = np.minimum(death, censor), (death <= censor).astype(float)
    response = (generator.uniform(size=n) < 1 / (1 + np.exp(risk - risk.mean()))).astype(float)
    return x.astype(float), (response, np.asarray(time), np.asarray(event))


def fit_floor(x, outcomes, test, horizons=()):
    """Return the floor of these clinical columns and outcomes for other patients."""
    return clinical_floor.fit_floor(cohort(x, outcomes), cohort(test, outcomes), horizons=horizons)


def cohort(x, outcomes):
    response, time, event = outcomes
    ids, hospital = [f"p{i}" for i in range(len(x))], np.full(len(x), "a")
    return Cohort("floor", ids, hospital, {}, {}, response, time, event, x)


def test_floor_is_ridge_cox_and_logistic_on_standardised_columns():
    x, outcomes = data()
    test = x.iloc[:30]
    found = fit_floor(x, outcomes, test, horizons=(12.0, 36.0))
    z = (x - x.mean()) / x.std(ddof=0)
    cox = CoxPHFitter(penalizer=0.1).fit(z.assign(t=outcomes[1], e=outcomes[2]), "t", "e")
    np.testing.assert_allclose(found.risk, cox.predict_log_partial_hazard(z.iloc[:30]), rtol=1e-9)
    curve = cox.predict_survival_function(z.iloc[:30], times=[12.0, 36.0]).to_numpy().T
    np.testing.assert_allclose(found.survival, curve, rtol=1e-9)
    logistic = LogisticRegression(max_iter=1000).fit(z, outcomes[0])
    np.testing.assert_allclose(found.response_prob, logistic.predict_proba(z.iloc[:30])[:, 1])


def test_missing_values_get_the_training_median_and_a_flag():
    x, outcomes = data()
    x.loc[:20, "stage"] = np.nan
    found = fit_floor(x, outcomes, x)
    assert np.isfinite(found.risk).all()
    moved = x.copy()
    moved["stage"] = x["stage"].fillna(x["stage"].median())
    other = fit_floor(moved, outcomes, moved)
    assert not np.allclose(found.risk, other.risk)


def test_too_few_events_give_no_floor_instead_of_a_wrong_one():
    x, (response, time, event) = data()
    event = np.zeros_like(event)
    event[:2] = 1
    found = fit_floor(x, (np.ones_like(response), time, event), x, horizons=(12.0,))
    assert np.isnan(found.risk).all()
    assert np.isnan(found.response_prob).all()
    assert np.isnan(found.survival).all()


def test_a_constant_column_is_left_out():
    x, outcomes = data()
    np.testing.assert_allclose(
        fit_floor(x.assign(same=1.0), outcomes, x.assign(same=2.0)).risk,
        fit_floor(x, outcomes, x).risk,
        rtol=1e-9,
    )
