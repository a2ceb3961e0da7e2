import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from simulations.synthetic.cohort import attainable, draw_cohort, weights
from simulations.synthetic.oracle import oracle_metrics, truth_table
from simulations.synthetic.public_reference import public_hazards, public_prevalence
from simulations.synthetic.spec import FACTORS, ConsortiumSpec, Signal, SiteSpec, demo_spec


@pytest.fixture(scope="module")
def large():
    spec = demo_spec(patients=3000, complete=True)
    return spec, [draw_cohort(spec, site) for site in spec.sites]


def test_metrics_that_cannot_be_estimated_are_none(large):
    spec, cohorts = large
    found = oracle_metrics(truth_table(cohorts, spec.signal).iloc[:1])
    assert (found["response_auc"], found["c_index"], found["n"]) == (None, None, 1)


def test_oracle_lies_where_the_docstring_says(large):
    spec, cohorts = large
    found = oracle_metrics(truth_table(cohorts, spec.signal))
    assert found["response_auc"] == pytest.approx(0.88, abs=0.015)
    assert found["c_index"] == pytest.approx(0.80, abs=0.015)
    assert found["attainable_response_auc"] == pytest.approx(found["response_auc"])


def test_no_single_factor_comes_near_the_oracle(large):
    spec, cohorts = large
    truth = truth_table(cohorts, spec.signal)
    for name in FACTORS:
        auc = roc_auc_score(truth["response"], truth[f"z_{name}"])
        assert 0.62 < max(auc, 1 - auc) < 0.75, name


def test_factors_are_independent_standard_normal(large):
    _, cohorts = large
    centred = np.concatenate([c.latent - weights(c.site.case_mix) for c in cohorts])
    assert np.abs(centred.mean(axis=0)).max() < 0.05
    assert np.abs(np.cov(centred.T) - np.eye(4)).max() < 0.06


def test_published_baseline_is_that_of_a_population_without_case_mix():
    spec = ConsortiumSpec(sites=[SiteSpec(site_id="a", patients=40_000)], missing_survival=0)
    cohort = draw_cohort(spec, spec.sites[0])
    assert public_prevalence(spec.signal) == pytest.approx(
        cohort.response_probability.mean(), abs=0.01
    )
    edges = [0.0, 12.0, 24.0, 36.0, 60.0]
    hazards = public_hazards(spec.signal, edges)
    for left, right, hazard in zip(edges, edges[1:], hazards, strict=False):
        at_risk = cohort.time_months >= left
        # only patients whose censoring is later than the interval tell its hazard
        known = at_risk & ((cohort.event == 1) | (cohort.time_months >= right))
        died = known & (cohort.time_months < right) & (cohort.event == 1)
        censored = int((at_risk & ~known).sum())
        # actuarial estimate: censored patients count half
        assert died.sum() / (at_risk.sum() - censored / 2) == pytest.approx(hazard, abs=0.02)


def test_attainable_scores_equal_a_simulation():
    signal = Signal()
    latent = np.array([[0.4, -1.0, 0.7, 0.2], [1.0, 2.0, -0.5, 0.0]])
    present = np.array([[True, False, True, True], [True, False, False, True]])
    probability, risk = attainable(signal, latent, present)
    draws = np.random.default_rng(0).standard_normal((200_000, 4))
    for row in range(2):
        filled = np.where(present[row], latent[row], draws)
        simulated = expit(signal.intercept + filled @ weights(signal.response)).mean()
        assert probability[row] == pytest.approx(simulated, abs=0.003)
        assert risk[row] == pytest.approx((filled @ weights(signal.survival)).mean(), abs=0.02)


def test_missing_modalities_lower_what_is_attainable():
    spec = demo_spec(patients=1500)
    found = oracle_metrics(truth_table([draw_cohort(spec, s) for s in spec.sites], spec.signal))
    assert 0.01 < found["response_auc"] - found["attainable_response_auc"] < 0.1
    assert 0.01 < found["c_index"] - found["attainable_c_index"] < 0.1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    missing=st.floats(0, 0.95),
    lacks=st.sets(st.sampled_from(["pathology", "radiology", "genomics"])),
)
def test_every_patient_has_something_and_lacks_what_the_site_lacks(seed, missing, lacks):
    site = SiteSpec(site_id="a", patients=30, lacks=sorted(lacks))
    spec = ConsortiumSpec(seed=seed, sites=[site], missing_modality=missing)
    cohort = draw_cohort(spec, site)
    assert cohort.present.any(axis=1).all()
    for name in lacks:
        assert not cohort.has(name).any()
    assert np.array_equal(np.isnan(cohort.time_months), np.isnan(cohort.event))
    assert np.nanmin(cohort.time_months) > 0


def test_a_site_is_the_same_in_any_consortium():
    three, five = demo_spec(patients=20, sites=3), demo_spec(patients=20, sites=5)
    one, other = (draw_cohort(spec, spec.sites[1]) for spec in (three, five))
    assert np.array_equal(one.latent, other.latent)
    assert not np.array_equal(
        one.latent[:5], draw_cohort(demo_spec(patients=20, seed=5), three.sites[1]).latent[:5]
    )


def test_oracle_of_some_patients_uses_only_them(large):
    spec, cohorts = large
    truth = truth_table(cohorts, spec.signal)
    ids = cohorts[1].patient_ids[:200]
    found = oracle_metrics(truth, ids)
    assert found["n"] == 200
    assert found["n_events"] == int(cohorts[1].event[:200].sum())
