"""A table of made patients whose outcomes follow their genes and stage."""

import numpy as np
import pandas as pd

COLUMNS = {
    "time": "months",
    "event": "died",
    "response": "responded",
    "features": {
        "genomics": ["gene_*"],
        "clinical": {
            "modality": "clinical",
            "columns": ["age", "stage"],
            "scaling": {"center": [60.0, 2.5], "scale": [10.0, 1.0]},
        },
    },
}


def patients(n, seed=0):
    """Return n patients of three hospitals, as many in each."""
    rng = np.random.default_rng(seed)
    genes, stage = rng.normal(size=(n, 3)), rng.integers(1, 5, n)
    risk = 0.5 * (stage - 2.5) + genes[:, 0]
    died, left = rng.exponential(30 * np.exp(-risk)), rng.uniform(5, 90, n)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i:03d}" for i in range(n)],
            "hospital": np.resize(["north", "south", "east"], n),
            "months": np.minimum(died, left) + 0.1,
            "died": (died <= left).astype(int),
            "responded": (rng.random(n) < 1 / (1 + np.exp(-genes[:, 1]))).astype(int),
            "age": rng.normal(60, 10, n).round(),
            "stage": stage,
            **{f"gene_{i}": genes[:, i] for i in range(3)},
        }
    )
