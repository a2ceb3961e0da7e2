"""Specify a synthetic consortium: hospitals, sizes, formats, gaps and the planted signal."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.contract import Contract
from common.study.modalities import Modality
from common.study.study import Identifier

FACTORS: tuple[Modality, ...] = ("pathology", "radiology", "genomics", "clinical")
"""Modalities that are simulated, each with a latent factor; one more would change every draw."""

TimeUnit = Literal["days", "months", "years"]

DEMO_NAMES = (
    "alder",
    "birch",
    "cedar",
    "dogwood",
    "elm",
    "fir",
    "ginkgo",
    "hazel",
    "ivy",
    "juniper",
)


class SiteSpec(Contract):
    """One invented hospital."""

    site_id: Identifier
    name: str = ""
    patients: int = Field(default=60, ge=1)
    lacks: list[Modality] = Field(default_factory=list, description="never acquired here")
    slide_format: Literal["tiff", "svs"] = "tiff"
    um_per_px: float = Field(default=0.5, gt=0.1, lt=1.0)
    volume_format: Literal["nifti", "dicom"] = "nifti"
    time_unit: TimeUnit = "months"
    case_mix: dict[Modality, float] = Field(
        default_factory=dict, description="mean of the latent factors here (0 where not named)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "clinical" in self.lacks:
            raise ValueError("lacks: every hospital has clinical data")
        return self


class Signal(Contract):
    """The planted truth: how the four latent factors z drive both outcomes.

    logit P(response) = intercept + sum_m response[m] z_m;
    hazard(t) = shape * rate^shape * t^(shape-1) * exp(sum_m survival[m] z_m), t in months.
    """

    intercept: float = -0.3
    response: dict[Modality, float] = Field(
        default={"pathology": 1.3, "radiology": -1.0, "genomics": 1.2, "clinical": -0.9}
    )
    survival: dict[Modality, float] = Field(
        default={"pathology": -0.6, "radiology": 0.75, "genomics": -0.6, "clinical": 0.85}
    )
    rate: float = Field(default=0.022, gt=0, description="baseline events per month")
    shape: float = Field(default=1.15, gt=0, description="Weibull shape")


class ConsortiumSpec(Contract):
    """A whole synthetic consortium; its digest names the files written from it."""

    seed: int = 2024
    sites: list[SiteSpec] = Field(min_length=1)
    signal: Signal = Signal()
    site_shift: float = Field(
        default=1.0, ge=0, description="strength of scanner, staining and batch differences"
    )
    missing_modality: float = Field(default=0.08, ge=0, lt=1, description="share a modality")
    missing_response: float = Field(default=0.10, ge=0, lt=1)
    missing_survival: float = Field(default=0.05, ge=0, lt=1)
    missing_cell: float = Field(default=0.04, ge=0, lt=1, description="share, clinical columns")
    loss_to_follow_up: float = Field(default=0.006, ge=0, description="censorings per month")
    follow_up_months: tuple[float, float] = (18.0, 84.0)
    second_slide: float = Field(default=0.1, ge=0, le=1, description="share with two slides")
    slide_side_px: int = Field(default=1280, ge=512, multiple_of=256)
    volume_shape: tuple[int, int, int] = Field(
        default=(20, 96, 96), description="slices, rows, columns"
    )
    damaged_files: bool = Field(
        default=False,
        description="the first site gets a slide without resolution and a truncated volume",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        ids = [site.site_id for site in self.sites]
        if len(set(ids)) != len(ids):
            raise ValueError("sites: every site_id must be unique")
        if not 0 < self.follow_up_months[0] <= self.follow_up_months[1]:
            raise ValueError("follow_up_months must be positive and increase")
        if min(self.volume_shape) < 12:
            raise ValueError("volume_shape: at least 12 voxels along each axis")
        return self


def demo_spec(
    *, patients: int = 60, sites: int = 3, seed: int = 2024, complete: bool = False
) -> ConsortiumSpec:
    """Return the consortium of the demo, or a larger one of the same kind.

    Every third hospital is fully equipped and stores NIfTI; the next stores DICOM with RTSTRUCT
    and SEG contours and has no RNA; the next has no MRI. Sizes, staining, scanners, units and
    case mix differ.

    Args:
        patients: Patients of an average hospital; sizes vary around it.
        sites: Number of hospitals.
        seed: Seed of everything.
        complete: No modality, label or clinical cell is missing anywhere.

    Example:
        >>> [site.site_id for site in demo_spec().sites]
        ['synthetic-alder', 'synthetic-birch', 'synthetic-cedar']
    """
    site_specs = [_demo_site(index, patients, complete=complete) for index in range(sites)]
    gaps: dict[str, float] = dict.fromkeys(
        ("missing_modality", "missing_response", "missing_survival", "missing_cell"), 0.0
    )
    return ConsortiumSpec(seed=seed, sites=site_specs, **(gaps if complete else {}))


def _demo_site(index: int, patients: int, *, complete: bool) -> SiteSpec:
    kind, lap = index % 3, index // 3
    tree = DEMO_NAMES[index] if index < len(DEMO_NAMES) else f"h{index:03d}"
    lacks: list[list[Modality]] = [[], ["genomics"], ["radiology"]]
    mixes: list[dict[Modality, float]] = [
        {"clinical": -0.2, "pathology": 0.15},
        {"clinical": 0.3, "radiology": 0.2},
        {"genomics": -0.2, "pathology": -0.15},
    ]
    units: list[TimeUnit] = ["months", "days", "years"]
    return SiteSpec(
        site_id=f"synthetic-{tree}",
        name=f"Synthetic {tree.capitalize()} Hospital",
        patients=max(1, round(patients * (1.2, 1.0, 0.8)[kind])),
        lacks=[] if complete else lacks[kind],
        slide_format="svs" if kind == 1 else "tiff",
        um_per_px=(0.5, 0.5, 0.45)[kind],
        volume_format="dicom" if kind == 1 else "nifti",
        time_unit=units[kind],
        case_mix={name: shift * (-1) ** lap for name, shift in mixes[kind].items()},
    )
