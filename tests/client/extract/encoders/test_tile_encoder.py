"""The embedded encoder against ImageNet, torch and itself; encoders a hospital brings."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import onnx
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from client.extract.encoders import encoder_weights
from client.extract.encoders.efficientnet_lite import MEAN, STD, load_efficientnet_lite0
from client.extract.encoders.encoder_registry import (
    ENCODERS,
    EncoderEntry,
    encoder_entry,
)
from client.extract.encoders.encoder_weights import weights_sha256
from client.extract.encoders.onnx_export import cached_efficientnet_lite0
from client.extract.encoders.tile_encoder import (
    OnnxEncoder,
    TorchEncoder,
    encoder_digest,
    load_encoder,
    prefer_device,
    resolve_device,
)
from common.errors import ConfigError, ErrorCode

PHOTOGRAPHS = {
    (matplotlib, "mpl-data/sample_data/grace_hopper.jpg"): "military uniform",
    (sklearn, "datasets/images/flower.jpg"): "daisy",
    (sklearn, "datasets/images/china.jpg"): "palace",
}
"""Photographs that come with installed packages, and what they show."""

IMAGENET = {"military uniform": 652, "daisy": 985, "palace": 698}
"""Class numbers of ImageNet-1k."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> OnnxEncoder:
    entry = encoder_entry("efficientnet_lite0")
    digest = encoder_digest(entry.name, {})
    path = cached_efficientnet_lite0(digest, cache)
    return OnnxEncoder(entry, path, digest, device="cpu", threads=1)


def photograph(package: ModuleType, name: str) -> NDArray[np.uint8]:
    with Image.open(Path(str(package.__file__)).parent / name) as stored:
        image = stored.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.array(image.crop((left, top, left + side, top + side)).resize((224, 224)))


def random_images(n: int, side: int = 224) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(("source", "shows"), PHOTOGRAPHS.items())
def test_network_weights_and_normalisation_recognise_photographs(
    source: tuple[ModuleType, str], shows: str
) -> None:
    """With ImageNet's mean and deviation in place of the Lite models' own, the palace is lost."""
    pixels = torch.from_numpy(photograph(*source)).permute(2, 0, 1)[None].float()
    network = load_efficientnet_lite0()
    chance = network._fc(network(pixels)).softmax(1)[0]
    assert int(chance.argmax()) == IMAGENET[shows]
    assert float(chance.max()) > 0.2


def test_registry_and_network_agree_on_normalisation() -> None:
    entry = encoder_entry("efficientnet_lite0")
    np.testing.assert_allclose(np.array(entry.mean) * 255, MEAN)
    np.testing.assert_allclose(np.array(entry.std) * 255, STD)


def test_onnx_equals_torch(encoder: OnnxEncoder) -> None:
    portrait = photograph(matplotlib, "mpl-data/sample_data/grace_hopper.jpg")
    images = np.concatenate([random_images(3), portrait[None], np.full_like(portrait, 255)[None]])
    reference = TorchEncoder(encoder_entry("efficientnet_lite0"), encoder.sha256, "cpu")
    found = encoder.encode(images)
    assert found.shape == (5, 1280)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.encode(images), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(encoder: OnnxEncoder) -> None:
    cuda = load_encoder("efficientnet_lite0", {}, "cuda")
    np.testing.assert_allclose(
        cuda.encode(random_images(4)), encoder.encode(random_images(4)), atol=1e-3
    )


def test_features_do_not_depend_on_the_batch(encoder: OnnxEncoder) -> None:
    images = random_images(5)
    one_by_one = np.concatenate([encoder.encode(image[None]) for image in images])
    np.testing.assert_array_equal(encoder.encode(images), one_by_one)
    assert encoder.encode(images[:0]).shape == (0, 1280)


def test_other_sizes_are_resized_by_area(encoder: OnnxEncoder) -> None:
    small = random_images(2)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(encoder.encode(large), encoder.encode(small))


def test_damaged_cache_is_written_anew(cache: Path, encoder: OnnxEncoder) -> None:
    path = cached_efficientnet_lite0(encoder.sha256, cache)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    assert cached_efficientnet_lite0(encoder.sha256, cache).read_bytes() == whole


def test_encoding_on_a_cpu_needs_no_torch(cache: Path, encoder: OnnxEncoder) -> None:
    (cache / "tumorboard").mkdir(exist_ok=True)
    for file in cache.glob("*.onnx"):
        (cache / "tumorboard" / file.name).write_bytes(file.read_bytes())
    code = (
        "import sys; from client.extract.encoders.tile_encoder import load_encoder;"
        "load_encoder('efficientnet_lite0', {}, 'cpu'); sys.exit('torch' in sys.modules)"
    )
    environment = {"XDG_CACHE_HOME": str(cache), "PATH": ""}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


def test_device_follows_the_policy() -> None:
    prefer_device("cpu")
    try:
        assert resolve_device("auto") == "cpu"
    finally:
        prefer_device("auto")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            resolve_device("cuda")


def test_every_registered_encoder_is_complete() -> None:
    assert {entry.name for entry in ENCODERS} >= {
        "efficientnet_lite0", "resnet50_trunc", "uni", "uni2_h", "conch", "ctranspath", "virchow2",
        "gigapath",
    }  # fmt: skip
    for entry in ENCODERS:
        assert entry.dim > 0
        assert entry.licence
        assert all(0 < value < 1 for value in (*entry.mean, *entry.std))


# Encoders a hospital brings -------------------------------------------------------------------


def mean_colour_model(
    path: Path, *, uint8: bool = False, width: int = 3, external: bool = False
) -> None:
    """Write an encoder whose features are the mean of each channel, times 1 (repeated)."""
    nodes = []
    if uint8:
        nodes += [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Transpose", ["f"], ["c"], perm=[0, 3, 1, 2])]
    nodes += [helper.make_node("GlobalAveragePool", ["c" if uint8 else "x"], ["p"])]
    nodes += [
        helper.make_node("Flatten", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "w"], ["y"]),
    ]
    shape = ["N", 8, 8, 3] if uint8 else ["N", 3, 8, 8]
    kind = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(np.eye(3, width, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if external:
        onnx.save_model(
            model, path, save_as_external_data=True, location="mean.onnx.data", size_threshold=0
        )
    else:
        path.write_bytes(model.SerializeToString())


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    entry = EncoderEntry("mean", 3, 8, "none", mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.25))
    monkeypatch.setitem(ENCODERS._entries, "mean", entry)
    folder = encoder_weights.weights_folder()
    folder.mkdir(parents=True)
    return folder


def params_of(path: Path) -> dict[str, object]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_foreign_encoder_gets_normalised_pixels(weights: Path) -> None:
    path = weights / "mean.onnx"
    mean_colour_model(path)
    image = np.full((1, 8, 8, 3), (255, 51, 0), np.uint8)
    found = load_encoder("mean", params_of(path), "cpu").encode(image)
    np.testing.assert_allclose(
        found, [[(1 - 0.5) / 0.2, (0.2 - 0.4) / 0.1, (0 - 0.3) / 0.25]], rtol=1e-5
    )


def test_foreign_encoder_of_raw_pixels_and_named_file(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.onnx"
    mean_colour_model(path, uint8=True)
    params = params_of(path) | {"weights": str(path)}
    image = np.full((2, 8, 8, 3), (255, 51, 0), np.uint8)
    np.testing.assert_allclose(
        load_encoder("mean", params, "cpu").encode(image), [[255, 51, 0]] * 2
    )


def test_weights_other_than_the_studys_are_refused(weights: Path) -> None:
    mean_colour_model(weights / "mean.onnx")
    with pytest.raises(ConfigError, match="not those of the study") as caught:
        load_encoder("mean", {"sha256": "0" * 64})
    assert caught.value.code == ErrorCode.FEATURE_FINGERPRINT
    with pytest.raises(ConfigError, match="not those of the study"):
        encoder_digest("efficientnet_lite0", {"sha256": "0" * 64})


def test_study_must_state_the_digest_of_foreign_weights(weights: Path) -> None:
    mean_colour_model(weights / "mean.onnx")
    with pytest.raises(ConfigError, match="does not say which weights"):
        load_encoder("mean", {})


def test_missing_and_damaged_and_wrong_weights(weights: Path) -> None:
    path = weights / "mean.onnx"
    with pytest.raises(ConfigError, match="are not there"):
        load_encoder("mean", {"sha256": "0" * 64})
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match="not a readable ONNX model"):
        load_encoder("mean", params_of(path))
    mean_colour_model(path, width=2)
    with pytest.raises(ConfigError, match="give 2 features, not 3"):
        load_encoder("mean", params_of(path))
    with pytest.raises(ConfigError, match="unknown encoder 'nobody'") as caught:
        load_encoder("nobody", {})
    assert "efficientnet_lite0" in caught.value.cure


def test_digest_covers_tensors_kept_in_a_second_file(weights: Path) -> None:
    path = weights / "mean.onnx"
    mean_colour_model(path, external=True)
    second = weights / "mean.onnx.data"
    both = hashlib.sha256(path.read_bytes() + second.read_bytes()).hexdigest()
    assert weights_sha256(path) == both
    second.write_bytes(second.read_bytes()[::-1])
    assert weights_sha256(path) != both
