"""Published models: attention against its formula, sizes, low-rank adaptation."""

import numpy as np
import pytest
import torch
from random_patients import SMALL_MODELS, Cohort, make_study, random_model
from scipy.special import softmax

from common.errors import ConfigError
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.models.systems.foundation import ALPHA, add_lora

PUBLISHED = {
    "tiles": {"modality": "pathology", "dim": 1024, "max_tokens": 4096},
    "genes": {"modality": "genomics", "dim": 768, "max_tokens": 4},
    "prompts": {"modality": "clinical", "dim": 512, "max_tokens": 6, "pool": "flatten"},
}


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_survpgc_has_about_its_published_size():
    assert 0.7e6 < count(build_model(make_study("survpgc", features=PUBLISHED))) < 1.1e6


def test_abmil_has_about_its_published_size():
    tiles = {"tiles": PUBLISHED["tiles"]}
    assert 0.4e6 < count(build_model(make_study("abmil", features=tiles))) < 0.55e6


def test_survpgc_reads_as_its_equations_say():
    study = make_study("survpgc", features=PUBLISHED, width=8, attention_width=4, tower_hidden=0)
    model = random_model(study, scale=0.2)
    cohort = Cohort(study, 1, missing=0.0)
    w = {n: p.detach().numpy().astype(float) for n, p in model.named_parameters()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(x, name):
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return z * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()

    def finish(x):
        x = gelu(linear(norm(x, "fusion.feed_forward.norm"), "fusion.feed_forward.first"))
        return norm(linear(x, "fusion.feed_forward.second"), "fusion.norm")

    patches = linear(cohort.tokens[0]["tiles"].astype(float), "pathology.tiles.linear")
    means, read = [], 0
    for path, feature in (("genomics", "genes"), ("clinical", "prompts")):
        own = linear(cohort.tokens[0][feature].astype(float), f"{path}.{feature}.linear")
        joined, n = np.concatenate([own, patches]), len(own)
        joined = norm(joined, f"fusion.paths.{path}.norm")
        q, k, v = (linear(joined, f"fusion.paths.{path}.{x}") for x in ("query", "key", "value"))
        weights = softmax(q[:n] @ k.T / 2.0, axis=1)
        back = softmax(q[n:] @ k[:n].T / 2.0, axis=1)
        means += [finish(weights @ v).mean(0), finish(back @ v[:n]).mean(0)]
        read = read + weights[:, n:].sum(0)
    outputs = model(cohort.batch([0]))
    assert outputs.embedding[0].detach().numpy() == pytest.approx(np.concatenate(means), abs=1e-4)
    share = outputs.attention["tiles"][0].detach().numpy()
    assert share == pytest.approx(read / read.sum(), abs=1e-5)


def test_survpgc_puts_absent_vectors_in_place_of_missing_paths():
    study = make_study("survpgc", **SMALL_MODELS["survpgc"])
    model = random_model(study)
    cohort = Cohort(study, 1, missing=0.0)
    batch = cohort.batch([0])
    batch.present["pathways"] = torch.tensor([False])
    embedding = model(batch).embedding[0]
    assert torch.equal(embedding[:32], model.fusion.absent["genomics"])
    assert not torch.isin(embedding[32:], model.fusion.absent["clinical"]).any()
    batch.present["tiles"] = torch.tensor([False])
    embedding = model(batch).embedding[0]
    assert torch.equal(embedding[48:], model.fusion.absent["clinical"][16:])


def test_survpgc_redundancy_is_a_loss_of_each_patient():
    plain = make_study("survpgc", **SMALL_MODELS["survpgc"])
    study = make_study("survpgc", redundancy_weight=0.3, **SMALL_MODELS["survpgc"])
    batch = Cohort(study, 6, missing=0.0).batch(range(6))
    assert random_model(plain).training_outputs(batch)[1] is None
    outputs, extra = random_model(study).training_outputs(batch)
    first, second = outputs.embedding.detach().numpy().reshape(6, 2, 32).transpose(1, 0, 2)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(1) / lengths
    expected = 0.3 * np.maximum(0, cosine - 0.2)
    assert extra.detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("survpgc", {"modalities": ["clinical"]}, "needs pathology"),
        ("survpgc", {"paths": ["pathology"]}, "other than pathology"),
        ("cross_attention", {"width": 10, "heads": 4}, "multiple of heads"),
        ("foundation", {"width": 10, "heads": 4}, "multiple of heads"),
        ("foundation", {"weights": "x"}, "weights and sha256 go together"),
        ("abmil", {"modalities": ["pathology"], "width": 0}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_model(make_study(name, **options))


def test_a_missing_side_is_one_learned_token_and_its_gradient_flows():
    study = make_study("cross_attention", **SMALL_MODELS["cross_attention"])
    model = random_model(study)
    batch = Cohort(study, 1, missing=0.0).batch([0])
    for feature, spec in study.features.items():
        if spec.modality != "clinical":
            batch.present[feature] = torch.tensor([False])
    model(batch).response_logit.sum().backward()
    learned = model.fusion.learned
    assert (learned.no_image.grad != 0).any()
    assert learned.no_clinic.grad is None or (learned.no_clinic.grad == 0).all()


def lora_study(rank: int):
    return make_study("foundation", lora_rank=rank, **SMALL_MODELS["foundation"])


def test_low_rank_adaptation_trains_up_matrices_and_heads_only():
    model = build_model(lora_study(2))
    names = list(expected_shapes(model))
    assert any(name.endswith(".up") for name in names)
    assert all(name.endswith(".up") or name.startswith("heads.") for name in names)


def test_low_rank_adaptation_starts_as_the_unchanged_model_and_adds_up_times_down():
    model = random_model(lora_study(2), scale=0.0)
    layer = model.fusion.layers[0].attention.query
    rows = torch.randn(3, 16)
    assert torch.equal(layer(rows), layer.base(rows))
    with torch.no_grad():
        layer.up.copy_(torch.randn(16, 2))
    change = (ALPHA / 2) * rows @ (layer.up @ layer.down).T
    assert torch.allclose(layer(rows), layer.base(rows) + change, atol=1e-5)


def test_low_rank_changes_freeze_the_named_layers_and_no_other():
    net = torch.nn.ModuleDict({"query": torch.nn.Linear(4, 4), "key": torch.nn.Linear(4, 4)})
    assert add_lora(net, 2, ("query", "value")) == 1
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"query.up", "key.weight", "key.bias"}
