"""nerfstudio reads the sets that `maquette views` writes, and its nerfacto learns from one.

nerfstudio pins half of the stack to old versions, so it lives in an environment of its own
(docs/nerfstudio.md says how to make it); `MAQUETTE_NERFSTUDIO` names that environment's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.posed import barrel_set

SCRIPT = Path(__file__).parents[2] / "scripts" / "nerfstudio_nerfacto.py"


@pytest.mark.nerfstudio
def test_nerfacto_learns_from_an_exported_set(tmp_path: Path) -> None:
    python = os.environ.get("MAQUETTE_NERFSTUDIO")
    if not python:
        pytest.skip("nerfstudio has an environment of its own; set MAQUETTE_NERFSTUDIO to its Python")
    barrel_set(tmp_path, size=64, count=10, channels=(), color="shaded")
    done = subprocess.run(
        [python, str(SCRIPT), str(tmp_path), "--steps", "12", "--rays", "256"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["cameras"] >= 8  # some are kept for evaluation
    assert found["last_loss"] < found["first_loss"]
