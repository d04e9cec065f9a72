"""The transformer that ships, with its modulation told by fewer numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.models import model_directory
from pipeline.multiview.transformer import MultiViewTransformer
from pipeline.multiview.transformer_network import camera_features, noise_level_features
from render.cameras import orbit_cameras

SCRIPT = Path(__file__).parents[3] / "scripts" / "narrow_modulation.py"


@pytest.mark.slow
def test_fewer_numbers_say_nearly_the_same_to_every_block(tmp_path: Path) -> None:
    shipped = model_directory()
    rank = 190
    told = subprocess.run(
        [sys.executable, SCRIPT, shipped, tmp_path / "transformer", "--rank", str(rank)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    left_out = [float(share) for share in re.findall(r"left out, [a-z ]+: ([0-9.]+)", told)]
    assert len(left_out) == 2
    assert max(left_out) < 0.01

    before = MultiViewTransformer.from_pretrained(shipped, subfolder="transformer").float()
    after = MultiViewTransformer.from_pretrained(tmp_path, subfolder="transformer").float()
    assert after.condition_in.out_features == rank
    # Conditions of the kind that blocks see: a camera and a noise level, of no name.
    cameras = orbit_cameras([11.0 * i for i in range(32)], [2.0 * i - 10 for i in range(32)], 128)
    axes = torch.cat([cameras.c2w[:, :3, i] for i in range(3)], -1)
    level = before.noise_mlp(noise_level_features(torch.linspace(0.05, 0.95, 32), 256))
    condition = torch.nn.functional.silu(level + before.camera_mlp(camera_features(axes)))
    for old, new in zip(before.blocks, after.blocks, strict=True):
        was = old.modulation(before.condition_in(condition))
        now = new.modulation(after.condition_in(condition))
        assert (was - now).norm() < 0.03 * was.norm()
