"""A hospital on disk in milliseconds: painted slides, hand-written features, a random model."""

import csv
import json
from pathlib import Path

import numpy as np
import yaml
from painted_slides import slide_with_tissue, write_slide
from random_patients import random_model

from client.data.bags import scale
from client.extract.slides.slide_table import SlideEntry, slide_index, slides_attribute
from common.cohort.features_h5 import FINGERPRINT, FeatureFile, write_features
from common.models.base.parameters import to_arrays
from common.study.study import Study
from common.wire import arrays_digest
from server.session.checkpoint import write_arrays

SIDE = 64
"""Side of a tile, level-0 pixels."""
COLUMNS = 6
"""Tiles lie on a grid of this many columns, from (32, 32) on."""
PATIENTS = ("P1", "P2", "P3", "P4")
COLUMN_NAMES = ["age", "stage", "sex=male"]
PATHWAY_NAMES = ["HYPOXIA", "APOPTOSIS", "REPAIR"]
MARK = "f" * 64


def site_study(model: str = "linear", *, max_tiles: int = 40, **changes) -> Study:
    """A synthetic study of slides, pathways and a clinical vector, all brought ready-made."""
    keys = {
        "study_id": "small",
        "synthetic": True,
        "endpoints": {
            "response": {"positive": "responds", "prevalence": 0.4},
            "survival": {"edges_months": [0, 12, 24, 36], "horizons_months": [12, 30]},
        },
        "features": {
            "tiles": {"modality": "pathology", "dim": 5, "max_tokens": max_tiles},
            "pathways": {
                "modality": "genomics",
                "dim": 4,
                "max_tokens": 3,
                "pool": "row_mean",
                "names": PATHWAY_NAMES,
            },
            "table": {
                "modality": "clinical",
                "dim": 3,
                "names": COLUMN_NAMES,
                "scaling": {"center": 0.5, "scale": 2.0},
            },
        },
        "model": {"name": model, "options": {"size": "small"} if model == "moemil" else {}},
        "privacy": {"mode": "local", "epsilon": 6.0},
        "sites": [{"site_id": "hospital-a"}, {"site_id": "hospital-b"}],
    }
    return Study.model_validate(keys | changes)


def write_small_site(folder: Path, *, n_tiles: int = 20) -> Path:
    """Write site.yaml, manifest, two slides for P1 and one for P2 and P3, and all features.

    P4 has a clinical vector alone; P3 lacks the pathways that its manifest names.
    """
    rng = np.random.default_rng(3)
    (folder / "slides").mkdir(parents=True)
    rows = []
    for number, patient in enumerate(PATIENTS):
        names = [] if patient == "P4" else [f"{patient}_1.tif"] + ["P1_2.tif"] * (patient == "P1")
        for name in names:
            pixels = slide_with_tissue(512, (24, 24, 440, 400), seed=number)
            write_slide(folder / "slides" / name, pixels, 0.5)
        if names:
            write_features(folder / f"features/tiles/{patient}.h5", tile_bag(names, n_tiles, rng))
        if patient in ("P1", "P2"):
            bag = FeatureFile(rng.normal(size=(3, 4)).astype(np.float32), attrs={FINGERPRINT: MARK})
            write_features(folder / f"features/pathways/{patient}.h5", bag)
        table = FeatureFile(rng.normal(size=(1, 3)).astype(np.float32), attrs={FINGERPRINT: MARK})
        write_features(folder / f"features/table/{patient}.h5", table)
        rows.append(
            {
                "patient_id": patient,
                "slides": ";".join(f"slides/{name}" for name in names),
                "rna": "" if patient == "P4" else "rna.csv",
                "clinical_age": 50 + number,
                "response": number % 2 if patient != "P2" else "",
                "time_months": 10 + number if patient != "P2" else "",
                "event": 1 if patient != "P2" else "",
            }
        )
    (folder / "rna.csv").write_text("patient_id,TP53\nP1,1.0\nP2,2.0\nP3,0.5\n")
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "site.yaml").write_text("site_id: hospital-a\ndevice: cpu\nminimum_cohort: 1\n")
    return folder


def tile_corners(n: int) -> np.ndarray:
    """Corners (n, 2) of the tiles of a slide, row by row."""
    k = np.arange(n)
    return np.stack([32 + SIDE * (k % COLUMNS), 32 + SIDE * (k // COLUMNS)], axis=1)


def tile_bag(slides: list[str], n: int, rng: np.random.Generator) -> FeatureFile:
    """A bag with n tiles of each slide, as the tile extractor writes it."""
    entries = [SlideEntry(k, name, n, 0.5, SIDE, 512, 512) for k, name in enumerate(slides)]
    return FeatureFile(
        rng.normal(size=(n * len(slides), 5)).astype(np.float32),
        np.concatenate([tile_corners(n)] * len(slides)),
        {FINGERPRINT: MARK, "slides": slides_attribute(entries)},
        slide_index(entries),
    )


def write_study(study: Study, path: Path) -> Path:
    """Write study.yaml."""
    path.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    return path


def write_model(study: Study, folder: Path, *, seed: int = 0) -> Path:
    """Write a random model as a finished run does, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = to_arrays(random_model(study, seed))
    write_arrays(folder / "model.safetensors", arrays)
    record = {"study_digest": study.digest(), "model_digest": arrays_digest(arrays)}
    (folder / "model.json").write_text(json.dumps(record))
    return folder / "model.safetensors"


def scaled(study: Study, feature: str, values: np.ndarray) -> np.ndarray:
    """Raw features as the model sees them."""
    return scale(values, study.features[feature].scaling)
