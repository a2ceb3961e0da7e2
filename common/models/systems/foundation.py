"""Foundation trunk: tokens of all modalities in one transformer, missing ones masked.

Bags longer than the latents become `latents` tokens by cross-attention from learned queries;
pathways, sentences, columns and vectors are tokens as they are. A modality embedding is added,
then pre-LN transformer layers over [CLS, all tokens]; CLS to the heads. With `lora_rank` > 0
only low-rank changes of queries and values, and the heads, are trained.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.base.weights_file import NO_CLAIM, PretrainedOptions, note_origin
from common.models.parts.encoders import is_pathway_set
from common.models.parts.token_attention import FeedForward, TokenAttention, check_heads
from common.models.parts.tokenizers import TokenOptions, make_tokenizer, share_of_attention
from common.models.parts.towers import Towers
from common.study.modalities import MODALITIES
from common.study.study import FeatureSpec, Study


class FoundationOptions(TokenOptions, PretrainedOptions):
    """Options of `foundation`; the defaults are the designed size, about 8 M parameters."""

    heads: int = Field(default=4, gt=0)
    layers: int = Field(default=6, gt=0)
    latents: int = Field(default=64, gt=0)
    lora_rank: int = Field(default=0, ge=0, description="0 trains everything")


class Foundation(FusedModel):
    """See the module's first lines."""

    options = FoundationOptions

    def __init__(self, study: Study, options: FoundationOptions) -> None:
        super().__init__(study, options)
        check_heads(options.width, options.heads)
        self.add_parts(lambda spec: _FeatureTokens(spec, options), sorted(MODALITIES))
        self.fusion = _Trunk(options)
        self.heads = Towers(study, options.width, hidden=0)
        options.load_into(self, skip=("heads.",))
        if options.lora_rank > 0:
            self.requires_grad_(requires_grad=False)
            add_lora(self.fusion, options.lora_rank, ("query", "value"))
            self.heads.requires_grad_()

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs; attention is what CLS reads of a set in the last layer."""
        tokens, masks, sources = [], [], {}
        for name in self.features:
            own, mask, source = self.part(name)(*batch.real_tokens(name))
            tokens.append(own)
            masks.append(mask)
            sources[name] = source
        embedding, reading = self.fusion(torch.cat(tokens, dim=1), torch.cat(masks, dim=1))
        response, hazards = self.heads(embedding)
        lengths = [mask.shape[1] for mask in masks]
        attention = self._attention(torch.split(reading, lengths, dim=1), sources, batch)
        return Outputs(response, hazards, embedding, attention)

    def _attention(
        self, reading: tuple[Tensor, ...], sources: dict[str, Tensor | None], batch: PatientBatch
    ) -> dict[str, Tensor]:
        attention = {}
        for (name, source), own in zip(sources.items(), reading, strict=True):
            mask = batch.mask[name] & batch.present[name].unsqueeze(1)
            if source is not None:
                own = torch.einsum("bl,blt->bt", own, source)
            elif own.shape[1] != mask.shape[1]:
                continue
            attention[name] = share_of_attention(own, mask)
        return attention


class _FeatureTokens(nn.Module):
    """A feature set to tokens with its modality embedding; long bags to latents."""

    def __init__(self, spec: FeatureSpec, options: FoundationOptions) -> None:
        super().__init__()
        self.tokenizer = make_tokenizer(spec, options)
        self.kind = nn.Parameter(0.02 * torch.randn(options.width))
        self.latents: _Latents | None = None
        if spec.max_tokens > options.latents and not is_pathway_set(spec):
            self.latents = _Latents(options.latents, options.width, options.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return tokens (B, T', width), their mask, and (B, T', T) sources of latents or None."""
        own, real = self.tokenizer(tokens, mask)
        source = None
        if self.latents is not None:
            own, source = self.latents(own, real)
            real = real.any(1, keepdim=True).expand(-1, own.shape[1])
        return torch.where(real.unsqueeze(-1), own + self.kind, 0.0), real, source


class _Latents(nn.Module):
    """Learned queries that read a bag (Jaegle et al., ICML 2021)."""

    def __init__(self, n_latents: int, width: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.2 * torch.randn(n_latents, width))
        self.norm = nn.LayerNorm(width)
        self.attention = TokenAttention(width, 1, dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.queries.expand(len(tokens), -1, -1)
        read, weights = self.attention(queries, self.norm(tokens), mask)
        return queries + read, weights


class _Trunk(nn.Module):
    """Transformer layers over [CLS, tokens]."""

    def __init__(self, options: FoundationOptions) -> None:
        super().__init__()
        self.cls = nn.Parameter(0.02 * torch.randn(options.width))
        self.layers = nn.ModuleList(
            [_Layer(options.width, options.heads, options.dropout) for _ in range(options.layers)]
        )
        self.norm = nn.LayerNorm(options.width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return CLS (B, width) and what it read of every token in the last layer, (B, T)."""
        state = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)
        real = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        reading = tokens[..., 0]
        for layer in self.layers:
            state, weights = layer(state, real)
            reading = weights[:, 1:]
        return self.norm(state[:, 0]), reading


class _Layer(nn.Module):
    """Pre-LN self-attention and feed-forward; returns what CLS read too."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = TokenAttention(width, heads, dropout)
        self.feed_forward = FeedForward(width, 4 * width, dropout)

    def forward(self, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norm(state)
        read, weights = self.attention(normed, normed, mask)
        state = state + read
        return state + self.feed_forward(state), weights[:, 0]


ALPHA = 16.0


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained change: W x + B A x / r * alpha (Hu et al., ICLR 2022).

    A is frozen at its public seed and only B, which starts at 0, is trained: the mean of the
    sites' B is then the mean of their changes, which the mean of A and B taken apart is not.

    Args:
        base: The layer; frozen here.
        rank: r.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.base.weight.requires_grad = False
        if self.base.bias is not None:
            self.base.bias.requires_grad = False
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound)
        self.down = nn.Parameter(down, requires_grad=False)
        note_origin(self.down, NO_CLAIM)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self._scale = ALPHA / rank

    def forward(self, rows: Tensor) -> Tensor:
        """Return (..., out_features)."""
        change = nn.functional.linear(nn.functional.linear(rows, self.down), self.up)
        rows_out: Tensor = self.base(rows) + self._scale * change
        return rows_out


def add_lora(module: nn.Module, rank: int, names: tuple[str, ...]) -> int:
    """Give every linear layer of these names inside a module a low-rank change; return how many."""
    layers = [
        (parent, name)
        for parent in list(module.modules())
        for name, child in list(parent.named_children())
        if name in names and isinstance(child, nn.Linear)
    ]
    for parent, name in layers:
        linear = parent.get_submodule(name)
        if isinstance(linear, nn.Linear):
            setattr(parent, name, LoraLinear(linear, rank))
    return len(layers)
