"""Noised local steps: one step is that of Opacus without its noise, and the ledger pays for all."""

import copy

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from pydantic import ValidationError
from random_patients import Cohort
from random_patients import make_study as make_random_study
from tiny_consortium import tiny_agents, tiny_datasets, tiny_study
from torch import Tensor, nn

from client.training.private_steps import train_private_steps
from common.cohort.batch import Outputs, PatientBatch
from common.commands.cli_output import Output
from common.errors import ConfigError
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from common.models.base.base import FusedModel, ModelOptions
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes, to_arrays
from common.models.losses.multitask import patient_loss
from common.study.private_round import encoding_of, sigma_of
from common.study.study import Study
from simulations.engines.consortium_run import run_in_process

CPU = torch.device("cpu")
SAMPLER = "common.privacy.integer_encoding.skellam"
PRIVACY = {"mode": "local", "epsilon": 6.0, "clip": 0.3}


def make_study(rounds=4, **local):
    plan = {"kind": "epochs", "optimizer": "sgd", "lr": 0.5, "epochs": 1} | local
    training = {"rounds": rounds, "local": plan, "server": {"name": "average"}}
    training |= {"nominal_patients": 150, "weight_decay": 0.0, "test_fraction": 0.25}
    return tiny_study(privacy=PRIVACY | {"evaluation": {"release": "internal"}}, training=training)


def one_site(study, n=23):
    return next(iter(tiny_datasets(study, n=n).values()))


def changed(study, patients, nominal=40.0):
    model = build_model(study)
    shapes = expected_shapes(model)
    encoding = encoding_of(study, shapes)
    return train_private_steps(
        model,
        patients,
        study,
        encoding=encoding,
        shapes=shapes,
        nominal_patients=nominal,
        device=CPU,
    )


def no_noise(size, _variance):
    return np.zeros(size, dtype=np.int64)


class _Net(nn.Module):
    """Two layers that Opacus has rules for."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.out = nn.Linear(8, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(tokens))).mean(1)


class _Model(FusedModel):
    def __init__(self, study) -> None:
        super().__init__(study, ModelOptions())
        self.pathology = _Net()

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        said = self.pathology(batch.real_tokens("tiles")[0])
        return Outputs(said[:, 0], said[:, 1:], said)


def step_of_opacus(model, cohort, study, nominal):
    """Return what one DP-SGD step of Opacus changes when its noise is left out."""
    before = to_arrays(model)
    net = GradSampleModule(model.pathology, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.5),
        noise_multiplier=0.0,
        max_grad_norm=study.privacy.clip,
        expected_batch_size=nominal,
        loss_reduction="mean",
    )
    batch = cohort.batch(range(len(cohort)))
    said = net(batch.real_tokens("tiles")[0])
    patient_loss(Outputs(said[:, 0], said[:, 1:], said), batch, study).sum().backward()
    optimizer.step()
    net.remove_hooks()
    after = to_arrays(model)
    return {name: after[name] - before[name] for name in after}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_without_noise_a_step_is_that_of_opacus(monkeypatch):
    monkeypatch.setattr(SAMPLER, no_noise)
    features = {"tiles": {"modality": "pathology", "dim": 6, "max_tokens": 1}}
    local = {"kind": "epochs", "optimizer": "sgd", "lr": 0.5}
    training = {"rounds": 4, "local": local, "weight_decay": 0.0}
    study = make_random_study(features=features).model_dump()
    study = Study.model_validate(study | {"privacy": PRIVACY, "training": training})
    cohort = Cohort(study, 19, seed=3)
    torch.manual_seed(1)
    model = _Model(study)
    start = copy.deepcopy(model)
    shapes = expected_shapes(model)
    ours = train_private_steps(
        model,
        cohort,
        study,
        encoding=encoding_of(study, shapes),
        shapes=shapes,
        nominal_patients=40.0,
        device=CPU,
    )
    theirs = step_of_opacus(start, cohort, study, 40)
    assert max(np.abs(change).max() for change in theirs.values()) > 1e-4
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=2e-6, err_msg=name)


def test_steps_follow_each_other(monkeypatch):
    monkeypatch.setattr(SAMPLER, no_noise)
    one, three = make_study(), make_study(epochs=3)
    patients = one_site(one)
    single, triple = changed(one, patients), changed(three, patients)
    name = max(single, key=lambda n: np.abs(single[n]).max())
    assert np.abs(triple[name]).max() > 1.5 * np.abs(single[name]).max()


def test_noise_and_divisor_do_not_know_how_many_patients_there_are(monkeypatch):
    """Neighbouring cohorts: the same variances are drawn, and nobody's absence rescales them."""
    study = make_study(epochs=2)
    drawn = []

    def noted(size, variance):
        drawn.append((size, variance))
        return np.full(size, round(variance**0.5), dtype=np.int64)

    monkeypatch.setattr(SAMPLER, noted)
    patients = one_site(study)
    nobody = patients.select([])
    seen = changed(study, patients), changed(study, patients.select(range(22)))
    empty = changed(study, nobody, nominal=40.0)
    assert len(drawn) == 6
    assert len(set(drawn)) == 1
    encoding = encoding_of(study, expected_shapes(build_model(study)))
    step = 0.5 * encoding.step * round(encoding.share_variance**0.5) / 40
    for name, change in empty.items():
        np.testing.assert_allclose(change, -2 * step, rtol=1e-4, err_msg=name)
    assert any(np.abs(seen[0][n] - seen[1][n]).max() > 0 for n in seen[0])


def test_all_steps_of_all_rounds_spend_the_budget(tmp_path):
    study = make_study(rounds=4, epochs=3)
    agents = tiny_agents(study, tmp_path / "sites")
    result = run_in_process(study, agents, tmp_path / "run", output=Output(json_mode=True))
    assert all(np.isfinite(array).all() for array in result.arrays.values())
    ledgers = sorted(tmp_path.glob("sites/*/private/ledger.jsonl"))
    assert len(ledgers) == len(study.sites)
    for path in ledgers:
        records = read_ledger(path)
        spends = [r.entry for r in records if r.kind == "reserve" and r.entry.partition == "train"]
        assert [s.mu_squared for s in spends] == pytest.approx([3 / sigma_of(study) ** 2] * 4)
        accounts = recompose(records, study.privacy.delta, where=str(path))
        account = next(a for a in accounts if a.partition == "train")
        assert account.agree
        assert account.epsilon == pytest.approx(6.0, rel=2e-3)


@pytest.mark.parametrize(
    ("local", "key"),
    [
        ({"control_variates": True, "optimizer": "sgd"}, "control_variates"),
        ({"modality_dropout": 0.2}, "modality"),
    ],
)
def test_what_a_noised_step_cannot_do_is_refused(local, key):
    with pytest.raises(ConfigError, match=key):
        make_study(**local)


def test_local_epochs_are_refused_in_mode_distributed():
    study = make_study().model_dump()
    study["privacy"]["mode"] = "distributed"
    with pytest.raises(ValidationError, match="local epochs work in mode 'local'"):
        type(make_study()).model_validate(study)
