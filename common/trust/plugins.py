"""Name the other distributions that a study uses, and refuse a study if they differ.

A hospital runs the code it reviewed and nothing else; where a study uses a model, an extractor or
an aggregation rule of another distribution, its digest covers version and sources of that too.
"""

from collections.abc import Iterator

from common.contract import canonical_json, sha256_hex
from common.errors import ConfigError, ErrorCode
from common.registry import Entry, OpenRegistry
from common.study.catalogue import EXTRACTORS, MODELS, RULES
from common.study.plugin import Plugin, PluginKind
from common.study.study import Study
from common.trust.provenance import source_digests

_REGISTRIES: dict[PluginKind, OpenRegistry[Entry]] = {
    "model": MODELS,
    "extractor": EXTRACTORS,
    "aggregation": RULES,
}


def with_plugins(study: Study) -> Study:
    """Return a study that names the distributions it uses, as they are installed here.

    Raises:
        ConfigError: It names others than are installed here, or a name is offered twice (PLUGIN).
    """
    if study.plugins:
        check_plugins(study)
        return study
    plugins = {*filter(None, (_installed(kind, name) for kind, name in _uses(study)))}
    return study.model_copy(update={"plugins": sorted(plugins, key=str)})


def check_plugins(study: Study) -> None:
    """Refuse a study whose code of other distributions is not the one installed here.

    Raises:
        ConfigError: A distribution is missing, has another version or other sources, or is not
            named by the study (PLUGIN).
    """
    study_plugins = {(plugin.kind, plugin.name): plugin for plugin in study.plugins}
    for kind, name in {*_uses(study), *study_plugins}:
        here, plugin = _installed(kind, name), study_plugins.get((kind, name))
        if here == plugin:
            continue
        raise ConfigError(
            f"{plugin or here} is not what is installed here"
            if plugin
            else f"the study does not name the distribution of {here}",
            where="study.plugins",
            why=_difference(plugin, here),
            cure="install the distribution and version that the study names"
            if plugin
            else "freeze the study with `tumorboard study freeze` and use the frozen file",
            code=ErrorCode.PLUGIN,
        )


def _difference(ours: Plugin | None, here: Plugin | None) -> str:
    if ours is None:
        return "hospitals approve a digest, and it must cover all code that meets patients"
    if here is None:
        return "no distribution here offers it"
    if str(ours) != str(here):
        return f"here is {here.distribution} {here.version}"
    return f"its sources differ: the study has {ours.sha256:.12}, here is {here.sha256:.12}"


def _uses(study: Study) -> Iterator[tuple[PluginKind, str]]:
    """Yield kind and name of everything in a study that may come from another distribution."""
    yield "model", study.model.name
    for entry in MODELS:
        if entry.name == study.model.name:
            inner = (study.model.options.get(option) for option in entry.inner)
            yield from (("model", name) for name in inner if isinstance(name, str))
    yield "aggregation", study.training.aggregation.rule
    for spec in study.features.values():
        if spec.extractor is not None:
            yield "extractor", spec.extractor.kind


def _installed(kind: PluginKind, name: str) -> Plugin | None:
    point = _REGISTRIES[kind].foreign(name)
    if point is None or point.dist is None:
        return None
    return Plugin(
        kind=kind,
        name=name,
        distribution=point.dist.name,
        version=point.dist.version,
        sha256=sha256_hex(canonical_json(source_digests(point.module.partition(".")[0]))),
    )
