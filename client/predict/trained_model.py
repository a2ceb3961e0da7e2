"""Load the model file of a finished run, checked against the study."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from common.errors import ConfigError, ErrorCode, ProtocolError
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.study.study import Study
from common.trust.plugins import check_plugins
from common.wire import Arrays, arrays_digest

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """A model with its parameters.

    Attributes:
        model: In evaluation mode, on CPU.
        digest: SHA-256 of its parameters.
        recorded: Whether the run's own record beside the file confirms study and parameters.
    """

    model: FusedModel
    digest: str
    recorded: bool


def load_trained_model(study: Study, path: Path) -> TrainedModel:
    """Return the trained model of a study.

    The run's record (`model.json` beside `model.safetensors`) is checked where it is there;
    without it, only names, shapes and finiteness of the parameters can be.

    Args:
        study: The study the model was trained in.
        path: The safetensors file, or the folder of the run that holds `model.safetensors`.

    Raises:
        ConfigError: The file is missing, unreadable or altered, or belongs to another study
            (then with code STUDY_DIGEST), or the study's code of another distribution is not
            what is installed here (PLUGIN).
    """
    file = path / MODEL_FILE if path.is_dir() else path
    arrays = _read_arrays(file)
    digest = arrays_digest(arrays)
    has_record = _check_record(file.with_suffix(".json"), study, digest)
    check_plugins(study)
    model = build_model(study)
    try:
        load_arrays(model, arrays)
    except ProtocolError as error:
        raise ConfigError(
            "the parameters do not fit the study's model",
            where=str(file),
            why=f"{error.what} ({error.where})",
            cure="pass the model and the study.yaml of the same run",
        ) from None
    return TrainedModel(model, digest, has_record)


def _read_arrays(file: Path) -> Arrays:
    if not file.is_file():
        raise ConfigError(
            "there is no model file",
            where=str(file),
            cure="pass the model.safetensors of a finished run, or the folder of the run",
        )
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(
            "the model file cannot be read",
            where=str(file),
            why=" ".join(str(error).split()),
            cure="copy the model.safetensors of the finished run again",
        ) from None


def _check_record(file: Path, study: Study, digest: str) -> bool:
    if not file.is_file():
        return False
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        trained_in, parameters = str(record["study_digest"]), str(record["model_digest"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            "the record beside the model cannot be read",
            where=str(file),
            cure="copy model.safetensors and model.json of the finished run again",
        ) from None
    if trained_in != study.digest():
        raise ConfigError(
            "the model was trained in another study",
            where=str(file),
            why=f"it was trained in {trained_in:.16}, this study is {study.digest():.16}; their "
            "scaling and features may mean different things",
            cure="pass the study.json of the run, or the model of this study",
            code=ErrorCode.STUDY_DIGEST,
        )
    if parameters != digest:
        raise ConfigError(
            "the model file is not the one the run finished with",
            where=str(file.with_suffix(".safetensors")),
            why=f"the record names {parameters:.16}, the file holds {digest:.16}",
            cure="copy model.safetensors and model.json of the finished run again",
        )
    return True
