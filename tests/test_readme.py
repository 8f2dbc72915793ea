"""The README's commands, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tested_commands() -> list[str]:
    """The lines of the README's `bash` blocks; `sh` blocks need make or a cluster."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(". .venv")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands_of_the_readme_work_after_the_demo(tmp_path):
    for name in ("configs", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    commands = ["python jobs/demo.py --out demo_out --num-clips 44", *tested_commands()]
    assert len(commands) > 6
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "demo_out" / "frames.png").exists()


def test_every_document_that_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`((?:docs|configs|vidcls_batch)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name
