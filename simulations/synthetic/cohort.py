"""Draw the synthetic patients: latent factors, outcomes, what is missing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from common.study.modalities import Modality
from simulations.synthetic.spec import FACTORS, ConsortiumSpec, Signal, SiteSpec
from simulations.synthetic.streams import stream

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_QUADRATURE = np.polynomial.hermite_e.hermegauss(41)


@dataclass(frozen=True)
class SiteCohort:
    """n synthetic patients of one hospital.

    Attributes:
        site: The hospital.
        patient_ids: n ids, unique over the consortium.
        latent: (n, 4) factors in the order of `FACTORS`.
        present: (n, 4) bool, whether the raw files exist.
        response_probability: (n,) true probability given all four factors.
        risk: (n,) true log hazard ratio, higher is worse.
        response: (n,) drawn outcome 0/1, NaN where the label is not recorded.
        time_months: (n,) follow-up, NaN where not recorded.
        event: (n,) 1 = died, 0 = censored, NaN where not recorded.
        two_slides: (n,) bool.
    """

    site: SiteSpec
    patient_ids: list[str]
    latent: FloatArray
    present: BoolArray
    response_probability: FloatArray
    risk: FloatArray
    response: FloatArray
    time_months: FloatArray
    event: FloatArray
    two_slides: BoolArray

    def has(self, modality: Modality) -> BoolArray:
        """Return (n,) bool: who has this modality."""
        return self.present[:, FACTORS.index(modality)]

    def factor(self, modality: Modality) -> FloatArray:
        """Return (n,) latent factors of this modality."""
        return self.latent[:, FACTORS.index(modality)]


def weights(by_modality: dict[Modality, float]) -> FloatArray:
    """Return (4,) weights in the order of `FACTORS`; 0 where not named."""
    return np.array([by_modality.get(name, 0.0) for name in FACTORS])


def draw_cohort(spec: ConsortiumSpec, site: SiteSpec) -> SiteCohort:
    """Draw the patients of one hospital; depends on `spec.seed` and the site alone."""
    n = site.patients
    generator = stream(spec.seed, site.site_id, "cohort")
    latent = generator.standard_normal((n, len(FACTORS))) + weights(site.case_mix)
    probability = expit(spec.signal.intercept + latent @ weights(spec.signal.response))
    response = (generator.random(n) < probability).astype(np.float64)
    risk = latent @ weights(spec.signal.survival)
    time, event = _draw_survival(spec, risk, generator)
    present = _draw_present(spec, site, generator)
    response[generator.random(n) < spec.missing_response] = np.nan
    unknown = generator.random(n) < spec.missing_survival
    time[unknown], event[unknown] = np.nan, np.nan
    return SiteCohort(
        site=site,
        patient_ids=[f"{site.site_id}-{index + 1:04d}" for index in range(n)],
        latent=latent,
        present=present,
        response_probability=probability,
        risk=risk,
        response=response,
        time_months=time,
        event=event,
        two_slides=generator.random(n) < spec.second_slide,
    )


def _draw_survival(
    spec: ConsortiumSpec, risk: FloatArray, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return follow-up months (n,) and events (n,): Weibull deaths, two kinds of censoring."""
    n, signal = len(risk), spec.signal
    death = (generator.exponential(size=n) / np.exp(risk)) ** (1 / signal.shape) / signal.rate
    end_of_study = generator.uniform(*spec.follow_up_months, size=n)
    draws = generator.exponential(size=n)
    loss_times = draws / spec.loss_to_follow_up if spec.loss_to_follow_up else np.full(n, np.inf)
    censored = np.minimum(end_of_study, loss_times)
    time = np.maximum(np.minimum(death, censored), 0.1)
    return np.round(time, 2), (death <= censored).astype(np.float64)


def _draw_present(
    spec: ConsortiumSpec, site: SiteSpec, generator: np.random.Generator
) -> BoolArray:
    """Return (n, 4) bool; nobody is left without any modality."""
    shares = np.full(len(FACTORS), spec.missing_modality)
    shares[FACTORS.index("clinical")] *= 0.25
    present = generator.random((site.patients, len(FACTORS))) >= shares
    for name in site.lacks:
        present[:, FACTORS.index(name)] = False
    present[~present.any(axis=1), FACTORS.index("clinical")] = True
    return present


def attainable(
    signal: Signal, latent: FloatArray, present: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return the best possible scores when absent modalities are unknown.

    The factors of absent modalities are integrated out as standard normals (41-point
    Gauss-Hermite quadrature).

    Args:
        signal: The planted truth.
        latent: (n, 4) factors.
        present: (n, 4) bool.

    Returns:
        (n,) probability of response and (n,) risk, given the observed factors.
    """
    towards = weights(signal.response)
    evidence = np.where(present, latent * towards, 0.0).sum(axis=1)
    spread = np.sqrt(np.where(present, 0.0, towards**2).sum(axis=1))
    nodes, mass = _QUADRATURE
    logits = signal.intercept + evidence[:, None] + spread[:, None] * nodes
    probability = (expit(logits) * mass).sum(axis=1) / mass.sum()
    risk = np.where(present, latent * weights(signal.survival), 0.0).sum(axis=1)
    return probability, risk
