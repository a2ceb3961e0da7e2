"""Public constants of the synthetic study, from invented patients of no hospital.

Scaling constants of real studies come from public cohorts. Here two public laboratories with
their own invented patients play that part: their files pass the real extractors once, and the
mean and standard deviation of every column are kept in `public_reference.json`, with the
fingerprints of the extractors that made them. Published hazards and prevalence follow from the
planted signal by integration.

`python -m simulations.synthetic.public_reference` makes the file again (some minutes).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from client.extract.kinds.extractor import create_extractor
from client.extract.run.runner import run_extraction
from common.cohort.features_h5 import read_features
from common.cohort.manifest import read_manifest
from common.commands.cli_output import Output
from common.contract import canonical_json
from common.errors import DataError
from common.storage.atomic_file import write_text
from common.study.study import PublicScaling
from simulations.synthetic.cohort import weights
from simulations.synthetic.feature_sets import SCALED_BY_REFERENCE, raw_feature_sets
from simulations.synthetic.spec import ConsortiumSpec, Signal, SiteSpec

REFERENCE_FILE = Path(__file__).with_name("public_reference.json")
PUBLIC_SEED = 424_242
PUBLIC_PATIENTS = 24
CLIP = 5.0

_NODES, _MASS = np.polynomial.hermite_e.hermegauss(61)


def reference_scaling() -> dict[str, PublicScaling]:
    """Return centre and scale of every column of the extracted feature sets.

    Raises:
        DataError: The file of constants is missing or damaged.
    """
    return {
        name: PublicScaling(center=entry["center"], scale=entry["scale"], clip=CLIP)
        for name, entry in _stored().items()
    }


def _stored() -> dict[str, dict[str, Any]]:
    try:
        reference: dict[str, Any] = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))
        features: dict[str, dict[str, Any]] = reference["features"]
        complete = all({"center", "scale", "fingerprint"} <= set(e) for e in features.values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(" ".join(str(error).split())) from error
    if not complete or set(features) != set(SCALED_BY_REFERENCE):
        raise _damaged("feature sets or constants are missing")
    return features


def _damaged(why: str) -> DataError:
    return DataError(
        "the public constants cannot be read",
        where=str(REFERENCE_FILE),
        why=why,
        cure="reinstall, or run python -m simulations.synthetic.public_reference",
    )


def public_prevalence(signal: Signal) -> float:
    """Return the share of responders when all factors are standard normal."""
    spread = float(np.linalg.norm(weights(signal.response)))
    mean = (expit(signal.intercept + spread * _NODES) * _MASS).sum() / _MASS.sum()
    return round(float(mean), 4)


def public_hazards(signal: Signal, edges_months: list[float]) -> list[float]:
    """Return P(death in interval k | alive at its start) when factors are standard normal.

    The last, open interval is judged over 24 months.
    """
    edges = np.array([*edges_months, edges_months[-1] + 24.0])
    spread = float(np.linalg.norm(weights(signal.survival)))
    cumulative = (signal.rate * edges) ** signal.shape
    alive = np.exp(-cumulative[:, None] * np.exp(spread * _NODES)) @ _MASS / _MASS.sum()
    return [round(float(value), 4) for value in 1 - alive[1:] / alive[:-1]]


def public_consortium() -> ConsortiumSpec:
    """Return the public laboratories, one per file format, nothing missing."""
    sites = [
        SiteSpec(site_id="synthetic-public-a", patients=PUBLIC_PATIENTS),
        SiteSpec(
            site_id="synthetic-public-b",
            patients=PUBLIC_PATIENTS,
            slide_format="svs",
            um_per_px=0.45,
            volume_format="dicom",
        ),
    ]
    gaps = dict.fromkeys(("missing_modality", "missing_cell"), 0.0)
    return ConsortiumSpec(seed=PUBLIC_SEED, sites=sites, **gaps)


def measure_reference(folder: Path, *, workers: int, output: Output) -> str:
    """Write the public laboratories to `folder`, extract them, return the constants as JSON.

    Raises:
        DataError: A public file could not be extracted.
    """
    from simulations.synthetic.consortium import write_consortium

    consortium = write_consortium(folder, public_consortium(), output=output, workers=workers)
    specs = {name: raw_feature_sets()[name] for name in SCALED_BY_REFERENCE}
    tokens: dict[str, list[Any]] = {name: [] for name in specs}
    for home in consortium.sites.values():
        manifest = read_manifest(home / "manifest.csv")
        summary = run_extraction(manifest, specs, home / "features", workers=workers, output=output)
        if summary.failed:
            raise DataError("public files failed", where=str(home), why=str(summary.failed[:3]))
        for name in specs:
            files = sorted((home / "features" / name).glob("*.h5"))
            tokens[name] += [read_features(path).features for path in files]
    features = {}
    for name, spec in specs.items():
        rows = np.concatenate(tokens[name]).astype(np.float64)
        scale = np.maximum(rows.std(axis=0), 1e-3)
        features[name] = {
            "fingerprint": create_extractor(name, spec).fingerprint,
            "center": [float(f"{value:.4g}") for value in rows.mean(axis=0)],
            "scale": [float(f"{value:.4g}") for value in scale],
        }
    return canonical_json({"patients": 2 * PUBLIC_PATIENTS, "features": features}) + "\n"


def main() -> None:
    """Measure the constants again and write them beside this file."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    text = measure_reference(place, workers=2, output=Output())
    write_text(REFERENCE_FILE, text)


if __name__ == "__main__":
    main()
