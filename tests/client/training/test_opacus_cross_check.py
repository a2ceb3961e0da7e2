"""Our per-patient gradients against those of Opacus, an independent implementation."""

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from random_patients import Cohort, make_study
from torch import Tensor, nn

from client.training.private_gradient import in_padded_chunks, one_by_one
from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel, ModelOptions
from common.models.base.parameters import trainable
from common.models.losses.multitask import patient_loss
from common.models.parts.attention_pooling import GatedAttention

FEATURES = {"tiles": {"modality": "pathology", "dim": 6, "max_tokens": 12}}


class _Net(nn.Module):
    """Attention pooling and heads of layers that Opacus has rules for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.pool = GatedAttention(8, 5)
        self.out = nn.Linear(8, 6)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.out(self.pool(torch.tanh(self.norm(self.linear(tokens))), mask)[0])


class _Model(FusedModel):
    def __init__(self, study) -> None:
        super().__init__(study, ModelOptions())
        self.pathology = _Net()

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        said = self.pathology(*batch.real_tokens("tiles"))
        return Outputs(said[:, 0], said[:, 1:], said)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_equal_those_of_opacus(seed):
    torch.manual_seed(seed)
    study = make_study(features=FEATURES)
    model = _Model(study).eval()
    cohort = Cohort(study, 7, seed=seed)
    order = sorted(range(7), key=lambda i: cohort.patient_ids[i])
    batch = cohort.batch(order)
    model.pathology.train()
    net = GradSampleModule(model.pathology, loss_reduction="sum")
    said = net(*batch.real_tokens("tiles"))
    patient_loss(Outputs(said[:, 0], said[:, 1:], said), batch, study).sum().backward()
    theirs = {f"pathology.{n}": p.grad_sample.clone() for n, p in net._module.named_parameters()}
    net.remove_hooks()
    model.eval()
    cpu = torch.device("cpu")
    for way in (
        one_by_one(model, cohort, study, cpu),
        in_padded_chunks(model, cohort, study, cpu, 3),
    ):
        ours = torch.cat([gradients.clone() for gradients, _ in way])
        expected = torch.cat([theirs[name].flatten(1) for name in trainable(model)], dim=1)
        assert torch.allclose(ours, expected, atol=1e-6)
