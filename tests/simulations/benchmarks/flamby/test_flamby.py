import math

import numpy as np
import pytest
import torch

from simulations.benchmarks.flamby.protocol import (
    FlambyData,
    Patients,
    batches,
    c_index,
    cox_loss,
    evaluate,
    initial_model,
    load_flamby,
    train_centrally,
)
from simulations.benchmarks.flamby.strategies import (
    ROUNDS,
    STRATEGIES,
    UPDATES,
    Strategy,
    train_federated,
    weighted,
)


def patients(n, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 39, generator=generator)
    times = torch.rand(n, generator=generator) * 100
    events = (torch.rand(n, generator=generator) < 0.5).float()
    return Patients(features, torch.stack([events, times], dim=1))


def small_data():
    train = [patients(24, i) for i in range(2)]
    pooled = Patients(torch.cat([p.features for p in train]), torch.cat([p.truth for p in train]))
    return FlambyData(train, train, pooled, pooled)


def test_cox_loss_is_the_mean_over_risk_sets_by_hand():
    batch = patients(8, 3)
    scores = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    by_hand = 0.0
    for i in range(8):
        event, time = batch.truth[i].tolist()
        if event:
            at_risk = [float(scores[j, 0]) for j in range(8) if batch.truth[j, 1] >= time]
            by_hand += math.log(sum(math.exp(s) for s in at_risk)) - float(scores[i, 0])
    assert float(cox_loss(scores, batch.truth)) == pytest.approx(by_hand / 8, rel=1e-5)


def test_one_site_alone_under_fedavg_is_plain_sgd():
    data = small_data()
    alone = FlambyData(data.train[:1], data.test, data.pooled_train, data.pooled_test)
    model = train_federated(Strategy("fedavg", 0.1), alone, seed=5)
    torch.manual_seed(5)
    plain = torch.nn.Linear(39, 1)
    torch.manual_seed(5)
    steps = 0
    while steps < ROUNDS * UPDATES:
        for features, truth in batches(alone.train[0]):
            if steps == ROUNDS * UPDATES:
                break
            plain.zero_grad()
            cox_loss(plain(features), truth).backward()
            with torch.no_grad():
                for parameter in plain.parameters():
                    parameter.sub_(0.1 * parameter.grad)
            steps += 1
    assert torch.allclose(model.weight, plain.weight, atol=1e-5)


def test_control_variates_cancel_when_there_is_one_site():
    data = small_data()
    alone = FlambyData(data.train[:1], data.test, data.pooled_train, data.pooled_test)
    plain = train_federated(Strategy("fedavg", 0.01), alone, seed=2)
    controlled = train_federated(Strategy("scaffold", 0.01, control_variates=True), alone, seed=2)
    assert torch.allclose(plain.weight, controlled.weight, atol=1e-5)
    both = small_data()
    scaffold = train_federated(Strategy("scaffold", 0.01, control_variates=True), both, seed=2)
    fedavg = train_federated(Strategy("fedavg", 0.01), both, seed=2)
    assert not torch.allclose(scaffold.weight, fedavg.weight, atol=1e-4)


def test_the_proximal_term_keeps_the_model_nearer_to_its_start():
    data = small_data()
    start = initial_model(1).weight
    free = train_federated(Strategy("fedavg", 0.1), data, seed=1).weight
    held = train_federated(Strategy("fedprox", 0.1, mu=2.0), data, seed=1).weight
    assert (held - start).norm() < (free - start).norm()


def test_updates_are_weighted_by_patients():
    mean = weighted([[torch.tensor([1.0])], [torch.tensor([5.0])]], [0.75, 0.25])
    assert float(mean[0]) == pytest.approx(2.0)
    assert {s.name for s in STRATEGIES} >= {"fedavg", "scaffold", "fedyogi"}


@pytest.mark.shared_data
def test_published_split_and_columns(shared_data):
    data = load_flamby(shared_data)
    assert [len(p) for p in data.train] == [248, 156, 164, 129, 129, 40]
    assert [int(p.truth[:, 0].sum()) for p in data.test] == [14, 4, 8, 3, 2, 1]
    scores = np.array([evaluate(train_centrally(data.pooled_train, 42), data)])
    assert scores.shape == (1, 8)
    assert c_index(initial_model(42), data.pooled_test) != scores[0, 7]
