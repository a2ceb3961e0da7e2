"""The Python page and the notebook of the handbook run as they stand."""

import os
import re
import sys
from pathlib import Path

import pytest

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


def test_the_notebook_runs_and_draws(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(HANDBOOK / "notebook.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code), "outputs are cleared"
    assert "SYNTHETIC" in code[0].source
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [output for cell in code for output in cell.outputs]
    pictures = [o for o in shown if "image/png" in o.get("data", {})]
    tables = [o["data"]["text/html"] for o in shown if "text/html" in o.get("data", {})]
    assert len(pictures) == 2
    assert all(arm in tables[-1] for arm in ARMS)
