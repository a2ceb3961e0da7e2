"""Layers that mix patients are refused with path, reason and replacement."""

import pytest
import torch
from random_patients import Cohort, make_study
from torch import nn

from common.errors import ErrorCode, PrivacyError
from common.models.base.build import build_model
from common.models.base.validators import check_private, mixes_patients


def small_model():
    return build_model(make_study("moemil", size="small", instance_patches=2))


@pytest.mark.parametrize(
    ("layer", "replacement"),
    [
        (nn.BatchNorm1d(4), "LayerNorm"),
        (nn.SyncBatchNorm(4), "LayerNorm"),
        (nn.BatchNorm2d(4, track_running_stats=False), "GroupNorm"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "track_running_stats=False"),
        (nn.MultiheadAttention(4, 2), "TokenAttention"),
        (nn.TransformerEncoderLayer(4, 2), "TokenAttention"),
        (nn.LSTM(4, 4), "GatedAttention"),
        (nn.GRU(4, 4), "GatedAttention"),
        (nn.LazyLinear(4), "sizes given"),
        (nn.ReLU(inplace=True), "inplace=False"),
        (nn.Dropout(0.1, inplace=True), "inplace=False"),
    ],
)
def test_a_layer_is_refused_by_path_with_its_replacement(layer, replacement):
    model = small_model()
    model.fusion["deep"] = nn.Sequential(nn.Identity(), nn.ModuleDict({"inner": layer}))
    with pytest.raises(PrivacyError) as caught:
        check_private(model)
    assert caught.value.code is ErrorCode.LAYER_NOT_PRIVATE
    assert caught.value.what.count("fusion.deep.1.inner") == 1
    assert replacement in caught.value.what


def test_every_offending_layer_is_named_at_once():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.LSTM(3, 3))
    with pytest.raises(PrivacyError, match="2 layer"):
        check_private(model)


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Conv1d(4, 4, 1), nn.AlphaDropout(0.1)]
)
def test_layers_of_one_patient_pass(layer):
    check_private(nn.Sequential(layer, nn.Linear(4, 4)))


class _Spoiled(nn.Module):
    """Passes its input on, spoiled by what other patients hold."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self.spoil = spoil
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, vectors, present):
        first = next(iter(vectors))
        spoiled = self.spoil(self, vectors[first])
        return self.joined(vectors | {first: spoiled}, present)


def _batch_mean(_module, rows):
    return rows - rows.mean(0, keepdim=True)


def _batch_mean_in_training(module, rows):
    return rows - rows.mean(0, keepdim=True) if module.training else rows


def _rank(_module, rows):
    return rows + (rows[:, :1] > rows[:, :1].median()).to(rows)


@pytest.mark.parametrize("spoil", [_batch_mean, _batch_mean_in_training, _rank])
def test_mixing_by_any_operation_is_found_by_running(spoil):
    model = small_model()
    spoiled = _Spoiled(spoil)
    spoiled.joined = model.fusion["absent"]
    model.fusion["absent"] = spoiled
    with pytest.raises(PrivacyError, match="depends on the others"):
        check_private(model)


def test_fresh_heads_that_start_at_zero_do_not_hide_mixing():
    class Mean(nn.Module):
        def forward(self, rows):
            return rows - rows.mean(0, keepdim=True)

    model = small_model()
    model.heads.response.insert(0, Mean())
    with pytest.raises(PrivacyError, match="depends on the others"):
        check_private(model)


def test_statistics_kept_in_a_buffer_are_found():
    def count(module, rows):
        if module.training:
            module.seen = module.seen + 1
        return rows

    model = small_model()
    spoiled = _Spoiled(count)
    spoiled.joined = model.fusion["absent"]
    model.fusion["absent"] = spoiled
    with pytest.raises(PrivacyError, match="buffers change"):
        check_private(model)


def test_the_check_leaves_the_model_as_it_was():
    study = make_study("moemil", size="small", instance_patches=2)
    model = build_model(study)
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    assert not mixes_patients(model, Cohort(study, 3).batch(range(3)))
    check_private(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state)
