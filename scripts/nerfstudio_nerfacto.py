"""Trains nerfstudio's nerfacto for a few steps on a set that `maquette views` wrote: does nerfstudio read it?

Runs in an environment of nerfstudio's own, which pins other versions than Maquette does (docs/nerfstudio.md):

    PYTHON scripts/nerfstudio_nerfacto.py FOLDER [--steps 30] [--rays 512]

On the CPU, without its viewer. Prints the number of cameras and the loss of the first and of the last steps,
as one line of JSON. Exit code 1 when the loss is not finite or did not fall.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rays", type=int, default=512)
    given = parser.parse_args()
    if not (given.folder / "transforms.json").is_file():
        sys.exit(f"There is no transforms.json in {given.folder}.")

    import torch
    import torchmetrics.image.lpip

    class Unmeasured(torch.nn.Module):
        """In place of LPIPS, whose network nerfacto loads over the internet to measure pictures with."""

        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()

    torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity = Unmeasured  # type: ignore[misc]
    from nerfstudio.configs.method_configs import method_configs
    from nerfstudio.models import nerfacto

    nerfacto.LearnedPerceptualImagePatchSimilarity = Unmeasured
    torch.manual_seed(0)
    config = method_configs["nerfacto"]
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.logging.local_writer.enable = False
    config.max_num_iterations = given.steps
    config.mixed_precision = False
    config.pipeline.model.implementation = "torch"
    config.pipeline.model.camera_optimizer.mode = "off"
    config.pipeline.model.eval_num_rays_per_chunk = 1024
    config.pipeline.datamanager.data = given.folder
    config.pipeline.datamanager.pixel_sampler.num_rays_per_batch = given.rays
    config.pipeline.datamanager.train_num_rays_per_batch = given.rays
    config.data = given.folder
    with tempfile.TemporaryDirectory() as folder:
        config.output_dir = Path(folder)
        config.set_timestamp()
        config.pipeline.datamanager.dataparser.data = given.folder
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        losses = []
        for step in range(given.steps):
            loss, _, _ = trainer.train_iteration(step)
            losses.append(float(loss.detach()))
        cameras = len(trainer.pipeline.datamanager.train_dataset.cameras)
    some = max(1, given.steps // 4)
    first, last = sum(losses[:some]) / some, sum(losses[-some:]) / some
    print(json.dumps({"cameras": cameras, "steps": given.steps, "first_loss": first, "last_loss": last}))
    if not last < first:
        sys.exit(1)


if __name__ == "__main__":
    main()
