"""Killed between two checkpoints, a run goes on from the last one and ends the same, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training import killed  # noqa: E402
from training.loops import groups_of, net  # noqa: E402

KILLS = {"hesso": 26, "cric": 19}
"""Method -> steps before it dies: inside the second period, inside a corrective cycle."""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize("method", KILLS)
def test_a_killed_run_ends_like_one_that_was_left_alone(method: str, tmp_path: Path) -> None:
    groups_of(net(21)).save(tmp_path / "groups.json")
    command = [sys.executable, "-m", "training.killed", str(tmp_path), method]
    folder = Path(__file__).parent

    died = subprocess.run([*command, str(KILLS[method])], cwd=folder, check=False)
    assert died.returncode == -signal.SIGKILL
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < saved < KILLS[method]

    subprocess.run(command, cwd=folder, check=True)
    final = torch.load(tmp_path / "final.pt", weights_only=True)
    (tmp_path / "checkpoint.pt").unlink()
    alone = killed.run(tmp_path, method, None).state_dict()
    assert alone.keys() == final.keys()
    for name, tensor in alone.items():
        assert torch.equal(tensor, final[name]), name
