"""Freeze a study: write the canonical file whose SHA-256 digest hospitals approve."""

from pathlib import Path

from common.contract import canonical_json
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.catalogue import EXTRACTORS
from common.study.federated_method import load_rule, stays_local
from common.study.study import Study


def frozen_path(study_file: Path) -> Path:
    """Return where the frozen form of a study file lies: `study.frozen.json` beside it."""
    return study_file.with_name(f"{study_file.stem.removesuffix('.frozen')}.frozen.json")


def freeze(study: Study, path: Path) -> str:
    """Write the canonical JSON of a study and return its digest, 64 hex characters.

    The file holds nothing else, so `sha256sum` of it gives the digest. Freezing the same study
    again changes nothing.

    Raises:
        ConfigError: Another study of the same version is frozen there already.
    """
    text = canonical_json(study.model_dump(mode="json"))
    if path.exists():
        before = Study.from_yaml(path)
        if before.digest() == study.digest():
            return study.digest()
        if (before.study_id, before.version) == (study.study_id, study.version):
            raise ConfigError(
                f"version {study.version} of '{study.study_id}' is frozen with other contents",
                where=str(path),
                why=f"hospitals may have approved {before.digest():.16}",
                cure=f"set version: {study.version + 1} in the study, then freeze again",
            )
    write_text(path, text)
    return study.digest()


def check_runnable(study: Study) -> None:
    """Refuse a study that no hospital could extract for, build, share, or train privately.

    Raises:
        ConfigError: An extractor, the model's name or an option is unknown, the study lacks what
            the model reads, or every trained parameter stays local.
        PrivacyError: The study is private and a layer of the model mixes patients, or weights
            are of unknown, random or non-private origin; or a card of weights is false.
    """
    from common.models.base.build import build_model
    from common.models.base.parameters import expected_shapes
    from common.models.base.validators import check_private
    from common.models.base.weights_origin import check_origin

    for name, spec in study.features.items():
        if spec.extractor is not None:
            EXTRACTORS.get(spec.extractor.kind, where=f"features.{name}.extractor.kind")
    load_rule(study.training.aggregation)
    model = build_model(study)
    patterns = study.training.stay_local
    if patterns and all(stays_local(name, patterns) for name in expected_shapes(model)):
        raise ConfigError(
            f"every trained parameter of model '{study.model.name}' stays with its site",
            where=f"training.stay_local: {', '.join(patterns)}",
            why="the sites would share nothing, so no round could train a common model",
            cure="name fewer parameters, e.g. '*norm*' (FedBN) or 'heads.*_bias'",
        )
    if study.privacy.is_private:
        check_private(model)
    check_origin(study, model)


def open_points(study: Study) -> list[str]:
    """Return what is allowed but deserves a second look before hospitals approve it."""
    points = []
    for name, spec in study.features.items():
        if spec.fingerprint is None:
            points.append(
                f"features.{name}: no fingerprint, so each site must keep to one extractor but "
                "sites may differ"
            )
        if spec.extractor is None:
            points.append(f"features.{name}: no extractor, so feature files come ready-made")
    if study.weights.accept_origin is not None:
        points.append("weights.accept_origin: weights of doubtful origin are used")
    if not study.privacy.is_private:
        points.append("privacy.mode none: updates leave hospitals without any guarantee")
    if study.privacy.epsilon > 10:
        points.append(f"privacy.epsilon {study.privacy.epsilon:g} promises little")
    if study.privacy.evaluation.release == "internal":
        points.append("privacy.evaluation.release internal: exact tables leave hospitals")
    elif study.subgroups and not study.privacy.evaluation.subgroup_epsilon:
        points.append("privacy.evaluation.subgroup_epsilon 0: no subgroup will be estimable")
    if study.endpoints.survival and not study.endpoints.survival.hazards:
        points.append("endpoints.survival.hazards: none published, biases start at zero")
    points += [
        f"sites.{site.site_id}: no registered public key"
        for site in study.sites
        if site.public_key is None and study.privacy.mode == "distributed"
    ]
    return points
