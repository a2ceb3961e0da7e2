"""AMKD student: reads slides only; its frozen teacher also reads gene expression.

Learned pseudo-gene queries read the patches, E_S = Attn(Q, P, P); patches read them back,
P' = P + gamma Attn(P, E_S, E_S) with gamma = 0 at the start; gated pooling of P' gives z_S and
the heads. The teacher, SurvPGC with the genomics path alone, gives gene-conditioned tokens E_T,
an embedding z_T and predictions. In training, a patient with slides and genes adds
w KD + a (1 - cos(E_S, E_T) + KL of attention) + b (w (1 - cos(z_S, z_T)) + redundancy of E_S),
every term the patient's own. Afterwards genes are not read.
"""

from typing import Self

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import Outputs, PatientBatch
from common.errors import ConfigError
from common.models.base.base import FusedModel
from common.models.base.weights_file import PretrainedOptions
from common.models.losses.distillation import (
    divergence,
    predicted_distribution,
    token_redundancy,
    trust_in_teacher,
)
from common.models.losses.multitask import patient_loss
from common.models.parts.attention_pooling import GatedAttention
from common.models.parts.encoders import is_pathway_set
from common.models.parts.token_attention import TokenAttention
from common.models.parts.tokenizers import LinearTokens, Tokens, tokens_of
from common.models.parts.towers import Towers
from common.models.systems.survpgc import SurvPgc, SurvPgcOptions
from common.study.study import Study

TEMPERATURE = 2.0
REDUNDANCY = 5e-3


class AmkdOptions(PretrainedOptions):
    """Options of `amkd_student`."""

    width: int = Field(default=128, gt=0)
    attention_hidden: int = Field(default=128, gt=0)
    tower_hidden: int = Field(default=64, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    teacher_options: dict[str, JsonValue] = Field(default_factory=dict)
    adaptive: bool = Field(default=True, description="weigh the teacher; else w = 1")
    distillation_weight: float = Field(default=1.0, ge=0)
    enhancement_weight: float = Field(default=0.5, ge=0)
    redundancy_weight: float = Field(default=0.1, ge=0)


class AmkdStudent(FusedModel):
    """See the module's first lines."""

    options = AmkdOptions

    def __init__(self, study: Study, options: AmkdOptions) -> None:
        super().__init__(study, options)
        self._study, self._options = study, options
        pathology = [n for n, spec in self.features.items() if spec.modality == "pathology"]
        genes = [n for n, spec in self.features.items() if spec.modality == "genomics"]
        if not pathology or len(genes) != 1 or not is_pathway_set(self.features[genes[0]]):
            raise ConfigError(
                "amkd_student needs slides and one set of pathway tokens",
                where="study.features",
                why="every pseudo-gene of the student stands for one pathway of the teacher",
                cure="give one genomics feature set with pool: row_mean and max_tokens > 1",
            )
        self.features = {name: self.features[name] for name in sorted([*pathology, *genes])}
        self._genes = genes[0]
        self.pathology = nn.ModuleDict(
            {name: LinearTokens(self.features[name], options.width) for name in pathology}
        )
        n_queries = self.features[self._genes].max_tokens
        self.fusion = _StudentFusion(options, n_queries, _teacher(study, options))
        self.heads = Towers(study, options.width, options.tower_hidden)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the student; the teacher never draws random numbers."""
        super().train(mode)
        self.fusion.teacher.eval()
        return self

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the student's outputs, from slides alone."""
        return self._read(batch)[0]

    def _read(self, batch: PatientBatch) -> tuple[Outputs, Tensor, Tensor]:
        patches = tokens_of(dict(self.pathology.named_children()), batch, self._options.width)
        embedding, genes, queried, pooling = self.fusion(patches)
        response, hazards = self.heads(embedding)
        attention = patches.attention(pooling, batch)
        return Outputs(response, hazards, embedding, attention), genes, queried

    def training_outputs(self, batch: PatientBatch) -> tuple[Outputs, Tensor | None]:
        """Return the outputs and what the teacher adds to the loss; 0 for unpaired patients."""
        outputs, genes, queried = self._read(batch)
        teacher = self.fusion.teacher
        with torch.no_grad():
            teacher_outputs = teacher.forward_prepared(batch)
            read = teacher.read_paths(batch)["genomics"]
        options = self._options
        weight, distilled = self._distil(outputs, teacher_outputs, batch)
        near = 1 - functional.cosine_similarity(genes, read.tokens[:, 1:], dim=-1).mean(-1)
        enhanced = near + divergence(read.attention[:, 1:], queried).mean(-1)
        same = 1 - functional.cosine_similarity(
            self.fusion.project(outputs.embedding), teacher_outputs.embedding, dim=-1
        )
        redundancy = weight * same + REDUNDANCY * token_redundancy(genes)
        total = (
            options.distillation_weight * weight * distilled
            + options.enhancement_weight * enhanced
            + options.redundancy_weight * redundancy
        )
        return outputs, torch.where(self._paired(batch), total, 0.0)

    def _paired(self, batch: PatientBatch) -> Tensor:
        slides = torch.stack([batch.present[name] for name in self.pathology]).any(0)
        return slides & batch.present[self._genes]

    def _distil(
        self, outputs: Outputs, teacher: Outputs, batch: PatientBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the trust in the teacher and the distillation of all tasks, both (B,)."""
        distances, distilled = [], torch.zeros_like(outputs.response_logit)
        for task in self._study.tasks:
            target, logit = (
                predicted_distribution(teacher, task),
                predicted_distribution(outputs, task),
            )
            distances.append(0.5 * (target - logit).abs().sum(-1))
            distilled = distilled + divergence(target, logit, TEMPERATURE)
        if not self._options.adaptive:
            return torch.ones_like(distilled), distilled
        own = patient_loss(outputs, batch, self._study)
        teachers = patient_loss(teacher, batch, self._study)
        return trust_in_teacher(own, teachers, torch.stack(distances).mean(0)), distilled


class _StudentFusion(nn.Module):
    """Pseudo-genes, enhancement, pooling, and the frozen teacher."""

    def __init__(self, options: AmkdOptions, n_queries: int, teacher: SurvPgc) -> None:
        super().__init__()
        width = options.width
        self.teacher = teacher
        self.queries = nn.Parameter(0.2 * torch.randn(n_queries, width))
        out = teacher.read_width
        self.read = TokenAttention(width, 1, options.dropout)
        self.read_back = TokenAttention(width, 1, options.dropout)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.to_genes = nn.Linear(width, out)
        self.project = nn.Linear(width, 2 * out)
        self.pool = GatedAttention(width, options.attention_hidden, options.dropout)
        self.norm = nn.LayerNorm(width)
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, patches: Tokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return z_S (B, width), E_S (B, Q, out), its attention (B, Q, P) and the pooling's."""
        tokens, mask = patches.tokens, patches.mask
        queries = self.queries.expand(len(tokens), -1, -1)
        genes, queried = self.read(queries, tokens, mask)
        every = torch.ones_like(genes[..., 0], dtype=torch.bool)
        back, _ = self.read_back(tokens, genes, every)
        pooled, pooling = self.pool(functional.relu(tokens + self.gamma * back), mask)
        here = mask.any(1, keepdim=True)
        embedding = torch.where(here, self.norm(pooled), self.absent)
        return embedding, self.to_genes(genes), queried, pooling


def _teacher(study: Study, options: AmkdOptions) -> SurvPgc:
    teacher_options = dict(options.teacher_options) | {"paths": ["genomics"]}
    where = "study.model.options.teacher_options"
    teacher = SurvPgc(study, SurvPgcOptions.from_mapping(teacher_options, where=where))
    options.load_into(teacher)
    teacher.requires_grad_(requires_grad=False)
    return teacher.eval()
