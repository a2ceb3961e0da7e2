"""List what a study may choose by name: models, extractors, aggregation rules.

One line per choice; to add one, write its code and name it here. Nothing is imported before a
study asks for it. Other distributions add their own through entry points of the same groups.
"""

from dataclasses import dataclass

from common.registry import Entry, OpenRegistry
from common.study.modalities import Modality


@dataclass(frozen=True)
class ModelEntry(Entry):
    """A model: a `common.models.base.base.FusedModel`.

    Attributes:
        reads: Modalities it reads unless its option `modalities` says otherwise; empty for all.
        inner: Options that name another model, e.g. the trunk under linear heads.
    """

    reads: tuple[Modality, ...] = ()
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleEntry(Entry):
    """An aggregation rule: a function as `common.study.federated_method.load_rule` says.

    Attributes:
        additive: Whether the sum of all updates is all it needs, so that secure sums will do.
    """

    additive: bool = False


_SYSTEMS, _EXTRACT, _AGGREGATE = "common.models.systems", "client.extract", "server.aggregate"

MODELS = OpenRegistry(
    "model",
    "tumorboard.models",
    ModelEntry,
    (
        ModelEntry("linear", f"{_SYSTEMS}.linear:LinearHeads"),
        ModelEntry("clinical_linear", f"{_SYSTEMS}.linear:LinearHeads", reads=("clinical",)),
        ModelEntry("moemil", f"{_SYSTEMS}.moemil:Moemil"),
        ModelEntry("frozen_trunk", f"{_SYSTEMS}.frozen_trunk:FrozenTrunk", inner=("trunk",)),
        ModelEntry("abmil", f"{_SYSTEMS}.abmil:Abmil", reads=("pathology",)),
        ModelEntry("survpgc", f"{_SYSTEMS}.survpgc:SurvPgc"),
        ModelEntry("cross_attention", f"{_SYSTEMS}.cross_attention:CrossAttention"),
        ModelEntry("foundation", f"{_SYSTEMS}.foundation:Foundation"),
        ModelEntry("amkd_student", f"{_SYSTEMS}.amkd:AmkdStudent", reads=("pathology", "genomics")),
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

RULES = OpenRegistry(
    "aggregation rule",
    "tumorboard.aggregation",
    RuleEntry,
    (
        RuleEntry("mean", f"{_AGGREGATE}.robust_mean:weighted_mean", additive=True),
        RuleEntry("median", f"{_AGGREGATE}.coordinate_rules:median"),
        RuleEntry("trimmed_mean", f"{_AGGREGATE}.coordinate_rules:trimmed_mean"),
        RuleEntry("centred_clipping", f"{_AGGREGATE}.centred_clipping:centred_clipping"),
        RuleEntry("krum", f"{_AGGREGATE}.krum:krum"),
    ),
)
"""Aggregation rules by the name in `training.aggregation.rule`."""


def is_additive(rule: str) -> bool:
    """Return whether a rule needs the sum of all updates alone; none of other distributions."""
    return any(entry.additive for entry in RULES if entry.name == rule)
