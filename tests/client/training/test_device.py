"""The device of a hospital, and that a GPU computes the same twice."""

import os

import pytest
import torch

from client.training.device import choose_device
from common.errors import ConfigError


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_a_gpu_uses_repeatable_algorithms(gpu, wish):
    assert choose_device(wish) == torch.device("cuda")
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_is_chosen_where_it_is_wanted(gpu):
    assert choose_device("cpu") == torch.device("cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="CUDA is requested"):
        choose_device("cuda")
