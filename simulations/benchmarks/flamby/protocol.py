"""Reproduce Fed-TCGA-BRCA as published: data order, mini-batch Cox loss, batches, metric.

`Linear(39, 1)`, batches of 8, Cox partial likelihood inside the batch. The order of patients is
that of the published table: with it and the published seeds, pooled training gives the published
figures to the last digit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from simulations.cohorts.fed_tcga_brca import read_published

N_REGIONS = 6
BATCH_SIZE = 8
SEEDS = (42, 43, 44, 45, 46)
COLUMNS = ("s0", "s1", "s2", "s3", "s4", "s5", "avg", "pooled_test")


@dataclass(frozen=True)
class Patients:
    """n patients: features (n, 39) float32, truth (n, 2) float32 = (event, days)."""

    features: Tensor
    truth: Tensor

    def __len__(self) -> int:
        """Return n."""
        return len(self.features)


@dataclass(frozen=True)
class FlambyData:
    """Published split: training patients by region and pooled, test patients likewise."""

    train: list[Patients]
    test: list[Patients]
    pooled_train: Patients
    pooled_test: Patients


def load_flamby(data: Path, *, standardise_age: bool = False) -> FlambyData:
    """Return the published split.

    Args:
        data: Folder that holds multicentre_survival/.
        standardise_age: Replace age in years by (age - mean) / SD of the training patients.

    Raises:
        DataError: The files are missing.
    """
    table, split = read_published(data)
    if standardise_age:
        age = table["age_at_index"].astype(float)
        trained = age[age.index.isin(split.index[split["fold"] == "train"])]
        table["age_at_index"] = (age - trained.mean()) / trained.std()

    def patients(column: str, value: str) -> Patients:
        rows = table[table.index.isin(split.index[split[column] == value])]
        values = torch.tensor(rows.to_numpy(dtype="float32"))
        return Patients(values[:, :39], values[:, 39:41])

    return FlambyData(
        train=[patients("fold2", f"train_{i}") for i in range(N_REGIONS)],
        test=[patients("fold2", f"test_{i}") for i in range(N_REGIONS)],
        pooled_train=patients("fold", "train"),
        pooled_test=patients("fold", "test"),
    )


def cox_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over a batch of E_i (log sum of exp s over those at risk - s_i).

    Args:
        scores: (n, 1), higher is riskier.
        truth: (n, 2) event and time; ties in time keep the order of the batch.
    """
    order = torch.argsort(-truth[:, 1], stable=True)
    ranked, events = scores[order, 0], truth[order, 0]
    return (events * (torch.logcumsumexp(ranked, 0) - ranked)).mean()


def initial_model(seed: int) -> nn.Linear:
    """Return the model all methods start from at this seed."""
    torch.manual_seed(seed)
    return nn.Linear(39, 1)


def batches(patients: Patients) -> DataLoader[tuple[Tensor, ...]]:
    """Return shuffled batches of 8; the order comes from torch's global generator."""
    dataset = TensorDataset(patients.features, patients.truth)
    return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches for ever: a new shuffle when the patients are through."""
    while True:
        yield from loader


def train_centrally(
    patients: Patients, seed: int, *, epochs: int = 30, lr: float = 0.1
) -> nn.Linear:
    """Return the model of one place: Adam over mini-batches (pooled and local baselines)."""
    model = initial_model(seed)
    torch.manual_seed(seed)
    loader = batches(patients)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for features, truth in loader:
            optimizer.zero_grad()
            cox_loss(model(features), truth).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def c_index(model: nn.Module, patients: Patients) -> float:
    """Return lifelines' C-index of the model's scores."""
    from lifelines.utils import concordance_index

    with torch.no_grad():
        scores = model(patients.features)[:, 0].numpy()
    return float(concordance_index(patients.truth[:, 1], -scores, patients.truth[:, 0]))


def evaluate(model: nn.Module, data: FlambyData) -> list[float]:
    """Return C for the six test sites, their mean, and the pooled test set."""
    sites = [c_index(model, patients) for patients in data.test]
    return [*sites, sum(sites) / len(sites), c_index(model, data.pooled_test)]
