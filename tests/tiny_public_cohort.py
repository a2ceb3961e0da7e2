"""A made cohort in the published format of Fed-TCGA-BRCA."""

import numpy as np
import pandas as pd


def write_data(folder):
    """A cohort in the published format of Fed-TCGA-BRCA: three regions, age and stage."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    n = 72
    age, stage = rng.normal(58, 13, n).round(), rng.integers(0, 2, n)
    risk = (age - 58) / 13 + stage
    died, censored = rng.exponential(900 * np.exp(-risk)), rng.exponential(1500, n)
    table = pd.DataFrame(
        {
            "pid": [f"TCGA-AA-{i:04d}" for i in range(n)],
            "age_at_index": age,
            "ajcc_pathologic_stage_Stage IIIA": stage,
            "E": (died <= censored).astype(int),
            "T": np.minimum(died, censored).round() + 1,
        }
    )
    table.to_csv(folder / "fed_tcga_brca.csv", index=False)
    split = pd.DataFrame({"pid": table["pid"], "fold": "train", "fold2": ""})
    split["fold2"] = [f"train_{i % 3}" for i in range(n)]
    split.to_csv(folder / "fed_tcga_brca_split.csv", index=False)
