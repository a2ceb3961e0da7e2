"""Cross-attention between clinical and image tokens, after the GIST response model.

One token a clinical column (x_j w_j + b_j), image tokens from the other modalities, a learned
CLS on the clinical side; blocks of bidirectional cross-attention (clinic reads images, images
read the clinic), each with feed-forward and residuals; CLS to the heads. A side that is missing
is represented by one learned token.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.parts.encoders import PathwayWeights
from common.models.parts.token_attention import FeedForward, TokenAttention, check_heads
from common.models.parts.tokenizers import TokenOptions, Tokens, make_tokenizer, tokens_of
from common.models.parts.towers import Towers
from common.study.modalities import MODALITIES
from common.study.study import Study


class CrossAttentionOptions(TokenOptions):
    """Options of `cross_attention`."""

    width: int = Field(default=128, gt=0)
    heads: int = Field(default=4, gt=0)
    blocks: int = Field(default=2, gt=0)
    pathway_hidden: int = Field(default=32, gt=0)
    pathway_weights: PathwayWeights = "shared"


class CrossAttention(FusedModel):
    """See the module's first lines."""

    options = CrossAttentionOptions

    def __init__(self, study: Study, options: CrossAttentionOptions) -> None:
        super().__init__(study, options)
        check_heads(options.width, options.heads)
        self._width = options.width
        self.add_parts(lambda spec: make_tokenizer(spec, options), sorted(MODALITIES))
        self.fusion = _CrossFusion(options)
        self.heads = Towers(study, options.width, hidden=0)

    def _side(self, batch: PatientBatch, *, clinical: bool) -> Tokens:
        tokens_by_name = {
            name: self.part(name)
            for name, spec in self.features.items()
            if (spec.modality == "clinical") == clinical
        }
        return tokens_of(tokens_by_name, batch, self._width)

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs; attention is how much CLS reads of every image token."""
        clinical, images = self._side(batch, clinical=True), self._side(batch, clinical=False)
        embedding, reading = self.fusion(clinical, images)
        response, hazards = self.heads(embedding)
        return Outputs(response, hazards, embedding, images.attention(reading, batch))


class _CrossFusion(nn.Module):
    """Blocks of bidirectional cross-attention; CLS is what comes out."""

    def __init__(self, options: CrossAttentionOptions) -> None:
        super().__init__()
        self.learned = _LearnedTokens(options.width)
        self.blocks = nn.ModuleList(
            [_Block(options.width, options.heads, options.dropout) for _ in range(options.blocks)]
        )
        self.norm = nn.LayerNorm(options.width)

    def forward(self, clinical: Tokens, pictures: Tokens) -> tuple[Tensor, Tensor]:
        """Return CLS (B, width) and how much it read of every image token, (B, I)."""
        clinic, clinic_mask = self.learned.stand_in(clinical, self.learned.no_clinic)
        images, image_mask = self.learned.stand_in(pictures, self.learned.no_image)
        clinic, clinic_mask = self.learned.with_cls(clinic, clinic_mask)
        reading = images.new_zeros(image_mask.shape)
        for block in self.blocks:
            clinic, images, weights = block(clinic, clinic_mask, images, image_mask)
            reading = reading + weights[:, 0]
        return self.norm(clinic[:, 0]), reading


class _LearnedTokens(nn.Module):
    """CLS and the tokens that stand in for a missing side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.no_clinic = nn.Parameter(torch.zeros(width))
        self.no_image = nn.Parameter(torch.zeros(width))

    def stand_in(self, side: Tokens, token: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens whose first, unreal one becomes `token` where nothing is real."""
        tokens, mask = side.tokens, side.mask
        nothing = ~mask.any(1)
        first = torch.where(nothing[:, None, None], token, tokens[:, :1])
        return (
            torch.cat([first, tokens[:, 1:]], dim=1),
            torch.cat([nothing.unsqueeze(1), mask[:, 1:]], dim=1),
        )

    def with_cls(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens with CLS in front."""
        cls = self.cls.expand(len(tokens), 1, -1)
        real = torch.ones_like(mask[:, :1])
        return torch.cat([cls, tokens], dim=1), torch.cat([real, mask], dim=1)


class _Block(nn.Module):
    """Both sides read each other from the same state, then a feed-forward each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.clinic_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.clinic_reads = TokenAttention(width, heads, dropout)
        self.images_read = TokenAttention(width, heads, dropout)
        self.clinic_forward = FeedForward(width, 2 * width, dropout)
        self.image_forward = FeedForward(width, 2 * width, dropout)

    def forward(
        self, clinic: Tensor, clinic_mask: Tensor, images: Tensor, image_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return clinic, images and the clinic's attention on images (B, C, I)."""
        normed, normed_images = self.clinic_norm(clinic), self.image_norm(images)
        read, weights = self.clinic_reads(normed, normed_images, image_mask)
        back, _ = self.images_read(normed_images, normed, clinic_mask)
        clinic, images = clinic + read, images + back
        return clinic + self.clinic_forward(clinic), images + self.image_forward(images), weights
