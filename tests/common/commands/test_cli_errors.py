"""What the system refuses is told in one message, never as a traceback."""

import subprocess
import sys
from pathlib import Path


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    code = "import sys; from common.commands.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "study", "init", str(out / "study.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("[TB100] the system refuses")
    assert str(out) in done.stderr
    assert "Traceback" not in done.stderr
