"""Narrows the modulation of a saved transformer: fewer numbers say the same to its blocks.

    python scripts/narrow_modulation.py PIPELINE OUT --rank 200

`PIPELINE` is a saved pipeline, also of a version whose blocks each had a matrix from the whole condition
(before `condition_in`); OUT becomes its transformer with `modulation_rank` RANK. The matrices of all blocks
together are decomposed into singular values, weighted by how much conditions vary: over names that the model
knows, noise levels and cameras, and three times as much by what differs between cameras alone, of which
views are made. What is left out of the modulation is printed, in parts of its spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.multiview.domain import Domain
from pipeline.multiview.text import TextEncoder
from pipeline.multiview.transformer import MultiViewTransformer
from pipeline.multiview.transformer_network import camera_features, noise_level_features
from render.cameras import orbit_cameras

CAMERA_WEIGHT = 3.0
_PROMPTS, _VIEWS = 1500, 8


def widest(folder: Path) -> MultiViewTransformer:
    """The saved transformer, fp32, with a `condition_in` that leaves the condition as it is."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = {k: v.float() for k, v in load_file(folder / "diffusion_pytorch_model.safetensors").items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("reference_")}
    width, depth = config["width"], config["depth"]
    shared = tensors.pop("condition_in.weight", torch.eye(width))
    for block in range(depth):
        tensors[f"blocks.{block}.modulation.weight"] @= shared
    tensors["condition_in.weight"] = torch.eye(width)
    sizes = {k: config[k] for k in ("latent_channels", "width", "depth", "heads", "mlp_ratio", "text_width")}
    model = MultiViewTransformer(**sizes, modulation_rank=width)
    model.load_state_dict(tensors)
    return model.eval()


@torch.no_grad()
def conditions(
    model: MultiViewTransformer, names: tuple[str, ...], *, levels: bool
) -> Float[Tensor, "p v w"]:
    """Conditions of names, seen from cameras; of any noise level, or with one for all."""
    rng, encoder = np.random.default_rng(0), TextEncoder()
    found = []
    for _ in range(_PROMPTS):
        name = "" if rng.uniform() < 0.1 else names[rng.integers(len(names))]
        _, pooled = model.context(encoder.tokens([name]).float())
        cameras = orbit_cameras(
            rng.uniform(0, 360, _VIEWS).tolist(), rng.uniform(-30, 70, _VIEWS).tolist(), 128
        )
        axes = torch.cat([cameras.c2w[:, :3, i] for i in range(3)], -1)
        level = (
            rng.uniform(0, 1, _VIEWS) * (rng.uniform(size=_VIEWS) > 0.1) if levels else np.full(_VIEWS, 0.6)
        )
        sigma = torch.from_numpy(level).float()
        told = model.noise_mlp(noise_level_features(sigma, 256)) + model.camera_mlp(camera_features(axes))
        found.append(F.silu(told + pooled))
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    asked = parser.parse_args()
    model = widest(asked.pipeline / "transformer")
    names = Domain.load(asked.pipeline).names
    width, depth = model.config.width, model.config.depth

    def covariance(deviation: Tensor) -> Tensor:
        flat = deviation.reshape(-1, width).double()
        return flat.T @ flat / len(flat)

    every, one_level = (conditions(model, names, levels=levels) for levels in (True, False))
    mean = every.mean((0, 1))
    between = one_level - one_level.mean(1, keepdim=True)
    spread, cameras = covariance(every - mean), covariance(between)
    weight = spread / spread.trace() + CAMERA_WEIGHT * cameras / cameras.trace()
    root = torch.linalg.cholesky(weight + 1e-8 * torch.eye(width))
    # In units of each block's own spread, so that all weigh alike.
    matrices = [block.modulation.weight.detach().double() for block in model.blocks]
    scale = torch.cat([(torch.trace(m @ spread @ m.T) / len(m)).rsqrt().expand(len(m)) for m in matrices])
    whole = torch.cat(matrices)
    left, values, right = torch.linalg.svd((scale[:, None] * whole) @ root, full_matrices=False)
    shared = right[: asked.rank] @ torch.linalg.inv(root)
    outer = left[:, : asked.rank] * values[: asked.rank] / scale[:, None]
    for what, deviation in (("all", every - mean), ("cameras alone", between)):
        flat = deviation.reshape(-1, width).double()
        missing = (flat @ (whole - outer @ shared).T).norm() / (flat @ whole.T).norm()
        print(f"left out, {what}: {missing:.5f}")
    bias = torch.cat([block.modulation.bias.detach().double() for block in model.blocks])
    bias = bias + (whole - outer @ shared) @ mean.double()
    # Components of about the same size in both factors, as fp16 likes them.
    balance = (shared.norm(dim=1) / outer.norm(dim=0) * (len(outer) / width) ** 0.5).sqrt()
    shared, outer = shared / balance[:, None], outer * balance
    tensors = model.state_dict()
    tensors["condition_in.weight"] = shared
    for block, (m, b) in enumerate(zip(outer.chunk(depth), bias.chunk(depth), strict=True)):
        tensors[f"blocks.{block}.modulation.weight"] = m
        tensors[f"blocks.{block}.modulation.bias"] = b
    folder = asked.out
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(half, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in model.config.items() if k != "_name_or_path"} | {"modulation_rank": asked.rank}
    text = json.dumps(config, indent=2, sort_keys=True, default=list)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
