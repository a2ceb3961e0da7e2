"""SurvPGC: cross-attention of pathology with genes and with clinical data, both ways.

For every path M of {genomics, clinical} and patches P, with Q, K, V linear in LN(tokens):
X_{M->P} = softmax([Q_M K_M^T, Q_M K_P^T] / sqrt(d')) [V_M; V_P] and
X_{P->M} = softmax(Q_P K_M^T / sqrt(d')) V_M; no patch reads a patch. Feed-forward and LayerNorm
(shared by both paths), mean over tokens, concatenation, tower. With `paths: [genomics]` and
pathway tokens this is SurvPath's attention. Softmax in both directions as in the released code.

A path or patches that are missing: learned absent vectors stand in for the means, and M reads
itself alone.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from common.cohort.batch import Outputs, PatientBatch
from common.errors import ConfigError
from common.models.base.base import FusedModel, masked_softmax
from common.models.parts.token_attention import FeedForward
from common.models.parts.tokenizers import (
    TokenOptions,
    Tokens,
    make_tokenizer,
    masked_mean,
    tokens_of,
)
from common.models.parts.towers import Towers
from common.study.modalities import MODALITIES, Modality
from common.study.study import Study


class SurvPgcOptions(TokenOptions):
    """Options of `survpgc`; the defaults are the published sizes."""

    paths: list[Modality] = Field(default=["genomics", "clinical"], min_length=1)
    attention_width: int = Field(default=128, gt=0, description="d', width of Q, K and V")
    tower_hidden: int = Field(default=64, ge=0)
    redundancy_weight: float = Field(
        default=0.0, ge=0, description="weight of max(0, cos(paths) - 0.2); 0 as published"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "pathology" in self.paths or len(set(self.paths)) != len(self.paths):
            raise ValueError("paths are modalities other than pathology, each once")
        return self


@dataclass
class PathRead:
    """What one path and the patches read of each other.

    Attributes:
        tokens: (B, M, d') X_{M->P} after feed-forward and LayerNorm.
        mask: (B, M) which of them are real.
        attention: (B, M, P) weights of the path's tokens on patches.
        means: (B, 2 d') means of X_{M->P} and X_{P->M}, or their absent vectors.
    """

    tokens: Tensor
    mask: Tensor
    attention: Tensor
    means: Tensor


class SurvPgc(FusedModel):
    """See the module's first lines."""

    options = SurvPgcOptions

    def __init__(self, study: Study, options: SurvPgcOptions) -> None:
        super().__init__(study, options)
        self._width, self._redundancy = options.width, options.redundancy_weight
        self.read_width = options.attention_width
        self._sets = {
            modality: [n for n, spec in self.features.items() if spec.modality == modality]
            for modality in MODALITIES
            if modality == "pathology" or modality in options.paths
        }
        self._paths = [m for m in options.paths if self._sets[m]]
        if not self._sets["pathology"] or not self._paths:
            raise ConfigError(
                "survpgc needs pathology and at least one of its paths",
                where="study.features",
                why=f"paths are {', '.join(options.paths)}",
                cure="add such feature sets, change options.paths, or choose moemil",
            )
        self.features = {n: s for n, s in self.features.items() if n in self._read_names()}
        self.add_parts(lambda spec: make_tokenizer(spec, options))
        width, out = options.width, options.attention_width
        self.fusion = _PathFusion(self._paths, width, out, options.dropout)
        self.heads = Towers(study, 2 * out * len(self._paths), options.tower_hidden)

    def _read_names(self) -> set[str]:
        return {name for names in self._sets.values() for name in names}

    def _tokens(self, modality: Modality, batch: PatientBatch) -> Tokens:
        parts = {name: self.part(name) for name in self._sets[modality]}
        return tokens_of(parts, batch, self._width)

    def read_paths(self, batch: PatientBatch) -> dict[Modality, PathRead]:
        """Return what every path and the patches read of each other."""
        return self._read(self._tokens("pathology", batch), batch)

    def _read(self, patches: Tokens, batch: PatientBatch) -> dict[Modality, PathRead]:
        return {path: self.fusion(path, self._tokens(path, batch), patches) for path in self._paths}

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs; attention is the patches' share of all paths' reading."""
        patches = self._tokens("pathology", batch)
        return self._say(self._read(patches, batch), patches, batch)

    def training_outputs(self, batch: PatientBatch) -> tuple[Outputs, Tensor | None]:
        """Return the outputs and the redundancy between the first two paths, if weighted."""
        patches = self._tokens("pathology", batch)
        reads = self._read(patches, batch)
        outputs = self._say(reads, patches, batch)
        if self._redundancy == 0 or len(reads) < 2:
            return outputs, None
        first, second = (read.means for read in list(reads.values())[:2])
        cosine = nn.functional.cosine_similarity(first, second, dim=1)
        return outputs, self._redundancy * (cosine - 0.2).clamp(min=0.0)

    def _say(
        self, reads: dict[Modality, PathRead], patches: Tokens, batch: PatientBatch
    ) -> Outputs:
        embedding = torch.cat([read.means for read in reads.values()], dim=1)
        response, hazards = self.heads(embedding)
        reading = torch.stack([read.attention.sum(1) for read in reads.values()]).sum(0)
        return Outputs(response, hazards, embedding, patches.attention(reading, batch))


class _PathFusion(nn.Module):
    """The attention of every path, then feed-forward, LayerNorm and means shared by all."""

    def __init__(self, paths: list[Modality], width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.paths = nn.ModuleDict({path: _Path(width, out, dropout) for path in paths})
        self.feed_forward = FeedForward(out, out, dropout)
        self.norm = nn.LayerNorm(out)
        self.absent = nn.ParameterDict({path: torch.zeros(2 * out) for path in paths})

    def forward(self, path: Modality, own: Tokens, patches: Tokens) -> PathRead:
        """Return what a path and the patches read of each other."""
        to_patches, to_path, attention = self.paths[path](
            own.tokens, own.mask, patches.tokens, patches.mask
        )
        tokens, has_path = self._finish(to_patches), own.mask.any(1, keepdim=True)
        means = [
            masked_mean(tokens, own.mask),
            masked_mean(self._finish(to_path), patches.mask),
        ]
        absent = self.absent[path].chunk(2)
        here = [has_path, has_path & patches.mask.any(1, keepdim=True)]
        inputs = [torch.where(h, m, a) for h, m, a in zip(here, means, absent, strict=True)]
        return PathRead(tokens, own.mask, attention, torch.cat(inputs, dim=1))

    def _finish(self, read: Tensor) -> Tensor:
        output: Tensor = self.norm(self.feed_forward(read))
        return output


class _Path(nn.Module):
    """Single-head attention between a path M and patches P, without P to P."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, out, bias=False)
        self.key = nn.Linear(width, out, bias=False)
        self.value = nn.Linear(width, out, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, path: Tensor, path_mask: Tensor, patches: Tensor, patch_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return X_{M->P} (B, M, out), X_{P->M} (B, P, out) and A_{M->P} (B, M, P)."""
        n_path = path.shape[1]
        sequence = self.norm(torch.cat([path, patches], dim=1))
        query, key, value = self.query(sequence), self.key(sequence), self.value(sequence)
        scale = math.sqrt(query.shape[-1])
        mask = torch.cat([path_mask, patch_mask], dim=1)
        to_all = torch.einsum("bmd,btd->bmt", query[:, :n_path], key) / scale
        weights = masked_softmax(to_all, mask.unsqueeze(1))
        to_path = torch.einsum("bpd,bmd->bpm", query[:, n_path:], key[:, :n_path]) / scale
        back = masked_softmax(to_path, path_mask.unsqueeze(1))
        attention = weights[:, :, n_path:] * path_mask.unsqueeze(-1)
        return (
            self.dropout(torch.einsum("bmt,btd->bmd", weights, value)),
            self.dropout(torch.einsum("bpm,bmd->bpd", back, value[:, :n_path])),
            attention,
        )
