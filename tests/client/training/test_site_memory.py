import numpy as np
import pytest

from client.training.site_memory import SiteMemory
from common.errors import TumorboardError


def arrays(value):
    return {"heads.w": np.full(2, value, np.float32)}


@pytest.fixture
def memory(tmp_path):
    kept = SiteMemory(tmp_path / "memory")
    kept.keep("control", 4, arrays(3), arrays(4))
    return kept


def value(found):
    return found["heads.w"][0] if found else None


def test_nothing_is_kept_before_the_first_round(tmp_path):
    assert SiteMemory(tmp_path).before("control", 1) == {}
    assert SiteMemory(tmp_path).latest("control") == {}


def test_next_round_goes_on_and_a_repeated_one_starts_where_it_started(memory):
    assert value(memory.before("control", 5)) == 4
    assert value(memory.before("control", 4)) == 3
    assert value(memory.latest("control")) == 4


def test_round_that_the_server_did_not_count_is_undone(memory):
    assert value(memory.before("control", 6, counted=3)) == 3
    assert value(memory.before("control", 6, counted=4)) == 4


def test_damaged_file_says_what_to_do(memory):
    (memory.folder / "control.safetensors").write_bytes(b"no")
    with pytest.raises(TumorboardError) as caught:
        memory.latest("control")
    assert "backup" in caught.value.cure
