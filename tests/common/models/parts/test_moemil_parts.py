"""Parts of MoEMIL against their formulas, told patient by patient in numpy."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, softmax

from common.models.parts.attention_pooling import GatedAttention
from common.models.parts.encoders import PathwayTokens
from common.models.parts.experts import MultiGateExperts
from common.models.parts.token_attention import TokenAttention
from common.models.systems.moemil import InstanceLoss
from common.study.study import FeatureSpec


def weights_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().astype(float) for name, p in module.named_parameters()}


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def test_gated_attention_is_that_of_the_paper():
    module = randomised(GatedAttention(4, 3))
    w = weights_of(module)
    tokens = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    pooled, attention = module(tokens, mask)
    for patient, length in enumerate([3, 5]):
        h = tokens[patient, :length].numpy().astype(float)
        gate = np.tanh(h @ w["value.weight"].T + w["value.bias"])
        gate = gate * expit(h @ w["gate.weight"].T + w["gate.bias"])
        a = softmax(gate @ w["score.weight"][0] + w["score.bias"][0])
        assert attention[patient, :length].detach().numpy() == pytest.approx(a, abs=1e-6)
        assert pooled[patient].detach().numpy() == pytest.approx(a @ h, abs=1e-5)


def test_token_attention_is_scaled_dot_product_attention_by_head():
    module = randomised(TokenAttention(6, n_heads=2))
    w = weights_of(module)
    generator = torch.Generator().manual_seed(1)
    queries, keys = (
        torch.randn(1, 3, 6, generator=generator),
        torch.randn(1, 4, 6, generator=generator),
    )
    mask = torch.tensor([[True, True, True, False]])
    read, weights = module(queries, keys, mask)
    q, k, v = (
        (x[0].numpy().astype(float)[:n] @ w[f"{part}.weight"].T + w[f"{part}.bias"])
        for part, x, n in (("query", queries, 3), ("key", keys, 3), ("value", keys, 3))
    )
    heads, shares = [], []
    for columns in (slice(0, 3), slice(3, 6)):
        share = softmax(q[:, columns] @ k[:, columns].T / np.sqrt(3), axis=1)
        heads.append(share @ v[:, columns])
        shares.append(share)
    expected = np.concatenate(heads, axis=1) @ w["out.weight"].T + w["out.bias"]
    assert read[0].detach().numpy() == pytest.approx(expected, abs=1e-5)
    assert weights[0, :, :3].detach().numpy() == pytest.approx(np.mean(shares, axis=0), abs=1e-6)
    assert (weights[0, :, 3] == 0).all()


def experts(expert_dropout: float = 0.0) -> MultiGateExperts:
    return randomised(
        MultiGateExperts(
            5,
            ("response", "survival"),
            n_experts=4,
            hidden=6,
            out=3,
            expert_dropout=expert_dropout,
        )
    )


def test_experts_are_mixed_by_one_gate_a_task():
    module = experts()
    w = weights_of(module)
    fused = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    mixed = module(fused)
    for patient in range(2):
        f = fused[patient].numpy().astype(float)
        said = []
        for e in range(4):
            rows = slice(6 * e, 6 * e + 6)
            hidden = gelu(w["first.weight"][rows] @ f + w["first.bias"][rows])
            said.append(gelu(hidden @ w["second"][e] + w["second_bias"][e]))
        for task in ("response", "survival"):
            gate = softmax(w[f"gates.{task}.weight"] @ f + w[f"gates.{task}.bias"])
            assert mixed[task][patient].detach().numpy() == pytest.approx(
                gate @ np.array(said), abs=1e-5
            )


def test_gates_are_renormalised_over_the_experts_that_are_kept():
    module = experts(expert_dropout=0.6).train()
    with torch.no_grad():
        module.second.zero_()
        module.second_bias.fill_(1.0)
    torch.manual_seed(0)
    mixed = module(torch.randn(200, 5))
    same = torch.full((200, 3), float(gelu(1.0)))
    assert torch.allclose(mixed["response"], same, atol=1e-5)


def test_expert_dropout_acts_in_training_only():
    module = experts(expert_dropout=0.6)
    fused = torch.randn(20, 5)
    assert torch.equal(module(fused)["response"], module(fused)["response"])
    module.train()
    assert not torch.equal(module(fused)["response"], module(fused)["response"])


@pytest.mark.parametrize("response", [0.0, 1.0])
def test_instance_loss_takes_the_patches_with_most_and_least_attention(response):
    module = randomised(InstanceLoss(3, n_patches=2))
    w = weights_of(module)
    generator = torch.Generator().manual_seed(1)
    hidden, attention = (
        torch.randn(1, 7, 3, generator=generator),
        torch.rand(1, 7, generator=generator),
    )
    mask = torch.tensor([[True] * 5 + [False] * 2])
    attention = torch.where(mask, attention, 0.0)
    loss = module(hidden, attention, mask, torch.tensor([response]))
    order = np.argsort(attention[0, :5].numpy())
    rows = slice(2, 4) if response else slice(0, 2)
    classifier = w["classifier.weight"][rows], w["classifier.bias"][rows]
    losses = []
    for label, chosen in ((1, order[-2:]), (0, order[:2])):
        for patch in chosen:
            logits = classifier[0] @ hidden[0, patch].numpy().astype(float) + classifier[1]
            losses.append(-np.log(softmax(logits)[label]))
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_instance_loss_is_zero_for_bags_under_two_k_patches():
    module = randomised(InstanceLoss(3, n_patches=2))
    hidden, attention = torch.randn(2, 5, 3), torch.rand(2, 5)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    losses = module(hidden, attention, mask, torch.ones(2))
    assert losses[0] == 0
    assert losses[1] > 0
    assert (module(hidden[:, :3], attention[:, :3], mask[:, :3], torch.ones(2)) == 0).all()


@pytest.mark.parametrize("weights", ["per_token", "shared"])
def test_every_pathway_has_its_own_layer_or_shares_one(weights):
    spec = FeatureSpec(modality="genomics", dim=4, max_tokens=3, pool="row_mean")
    module = randomised(PathwayTokens(spec, 2, weights, 0.0))
    w = weights_of(module)
    genes = torch.randn(1, 3, 4)
    tokens, _ = module(genes, torch.ones(1, 3, dtype=torch.bool))
    for p in range(3):
        weight = w["weight"][p if weights == "per_token" else 0]
        z = genes[0, p].numpy().astype(float) @ weight + w["bias"][p]
        elu = np.where(z > 0, z, np.expm1(z))
        assert tokens[0, p].detach().numpy() == pytest.approx(elu, abs=1e-5)
