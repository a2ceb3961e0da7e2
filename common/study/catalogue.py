"""List what a study may choose by name: models, extractors, aggregation rules.

One line per choice; to add one, write its code and name it here. Nothing is imported before a
study asks for it. Other distributions add their own through entry points of the same groups.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.registry import Entry, OpenRegistry


@dataclass(frozen=True)
class ModelEntry(Entry):
    """A model: a `common.models.base.base.FusedModel`.

    Attributes:
        inner: Options that name another model, e.g. the trunk under linear heads.
    """

    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleEntry(Entry):
    """An aggregation rule: a function as `server.aggregate.robust_mean` calls it.

    Attributes:
        additive: Whether the sum of all updates is all it needs, so that secure sums will do.
    """

    additive: bool = False


_SYSTEMS, _EXTRACT = "common.models.systems", "client.extract"

MODELS = OpenRegistry(
    "model",
    "tumorboard.models",
    ModelEntry,
    (
        ModelEntry("linear", f"{_SYSTEMS}.linear:LinearHeads"),
        ModelEntry("clinical_linear", f"{_SYSTEMS}.linear:ClinicalLinear"),
        ModelEntry("moemil", f"{_SYSTEMS}.moemil:Moemil"),
        ModelEntry("frozen_trunk", f"{_SYSTEMS}.frozen_trunk:FrozenTrunk", inner=("trunk",)),
        ModelEntry("abmil", f"{_SYSTEMS}.abmil:Abmil"),
        ModelEntry("survpgc", f"{_SYSTEMS}.survpgc:SurvPgc"),
        ModelEntry("cross_attention", f"{_SYSTEMS}.cross_attention:CrossAttention"),
        ModelEntry("foundation", f"{_SYSTEMS}.foundation:Foundation"),
        ModelEntry("amkd_student", f"{_SYSTEMS}.amkd:AmkdStudent"),
    ),
)
"""Models by the name in `model.name`."""

EXTRACTORS = OpenRegistry(
    "extractor kind",
    "tumorboard.extractors",
    Entry,
    (
        Entry("tiles", f"{_EXTRACT}.slides.tile_extractor:TileExtractor"),
        Entry("slices", f"{_EXTRACT}.volumes.slices:SlicesExtractor"),
        Entry("radiomics", f"{_EXTRACT}.volumes.radiomics:RadiomicsExtractor"),
        Entry("pathways", f"{_EXTRACT}.genomics.genomics:PathwayExtractor"),
        Entry("clinical_table", f"{_EXTRACT}.clinical.clinical_table:ClinicalTableExtractor"),
        Entry("clinical_text", f"{_EXTRACT}.clinical.clinical_text:ClinicalTextExtractor"),
    ),
)
"""Extractors by the kind in `features.<name>.extractor.kind`."""
