"""The Python page of the handbook runs as it stands."""

import re
from pathlib import Path

HANDBOOK = Path(__file__).parents[1] / "deploy" / "handbook"
ARMS = {"pooled", "federated", "local_only", "clinical_floor", "local_eps8"}


def test_the_code_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    import matplotlib as mpl

    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(
        r"```python\n(.*?)```", (HANDBOOK / "python.md").read_text(), re.DOTALL
    ):
        exec(block, space)
    assert set(space["comparison"].rows("c_index")["arm"]) == ARMS
    assert {label.get_text() for label in space["axes"].get_yticklabels()} == ARMS
    assert list(space["report"].hospitals.index) == ["east", "north", "south"]
    assert len(space["ledger"])
