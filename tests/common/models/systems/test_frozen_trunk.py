"""A frozen trunk: only heads are trained, weights are named by their digest."""

import pytest
import torch
from random_patients import Cohort, make_study, random_model
from weights_files import write_weights

from client.training.train import train_epochs
from common.errors import ConfigError
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes

SMALL = {"size": "small"}


@pytest.fixture
def pretrained(tmp_path):
    trunk = random_model(make_study("moemil", **SMALL), seed=5)
    return trunk, *write_weights(trunk, tmp_path / "trunk.safetensors")


def test_the_embedding_is_that_of_the_pretrained_trunk_standardised(pretrained):
    trunk, path, digest = pretrained
    study = make_study(
        "frozen_trunk", trunk_options=SMALL, weights=str(path), sha256=digest, embedding_norm=2.0
    )
    batch = Cohort(study, 4).batch(range(4))
    raw = trunk(batch).embedding
    centred = raw - raw.mean(1, keepdim=True)
    expected = 2.0 * centred / centred.norm(dim=1, keepdim=True)
    assert torch.allclose(build_model(study)(batch).embedding, expected, atol=1e-2)


def test_training_moves_the_heads_alone_and_draws_no_dropout_in_the_trunk():
    training = {"local": {"kind": "epochs", "lr": 0.1, "batch_size": 8}}
    study = make_study("frozen_trunk", training=training, trunk_options=SMALL)
    model, cohort = build_model(study), Cohort(study, 16)
    before = {n: p.clone() for n, p in model.named_parameters()}
    result = train_epochs(model, cohort, study, round=1, device=torch.device("cpu"))
    assert set(result.delta) == {"heads.bias", "heads.scores.weight"} == set(expected_shapes(model))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not name.startswith("heads.")), name
    model.train()
    batch = cohort.batch(range(4))
    assert torch.equal(model(batch).embedding, model(batch).embedding)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o, p: o.update(sha256="0" * 64), "not the one of the study"),
        (lambda o, p: p.unlink(), "cannot be read"),
        (lambda o, p: o.update(trunk_options=SMALL | {"width": 24}), "do not fit"),
        (lambda o, p: o.pop("sha256"), "go together"),
        (lambda o, p: o.update(trunk="frozen_trunk"), "'frozen_trunk' cannot be a trunk"),
        (lambda o, p: o.update(trunk="nothing"), "unknown model 'nothing'"),
    ],
)
def test_wrong_weights_are_refused(pretrained, spoil, message):
    _, path, digest = pretrained
    options = {"trunk_options": SMALL, "weights": str(path), "sha256": digest}
    spoil(options, path)
    with pytest.raises(ConfigError, match=message):
        build_model(make_study("frozen_trunk", **options))


def test_a_damaged_file_is_refused(tmp_path, pretrained):
    from common.contract import sha256_hex

    path = tmp_path / "damaged"
    path.write_bytes(b"not tensors")
    study = make_study(
        "frozen_trunk", trunk_options=SMALL, weights=str(path), sha256=sha256_hex(b"not tensors")
    )
    with pytest.raises(ConfigError, match="not a safetensors file"):
        build_model(study)
