"""What pictures are taken for, before anything is drawn: F-score of the volumes' own meshes.

    python -m bench.volume --props STEM [--count 48] [--volume FOLDER]

A lit picture of each of `count` `val` objects, as in `bench.assets`; the mesh of the cells that count
(`volume_views.LEVEL`), as the network finds them and with the picture's outline known (`as_shown`), against
the true object, both scaled into the unit ball. `--volume` measures other weights than those that ship.
Scattered cells score well here and make no asset: look at what `bench.assets` draws too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.measure import marching_cubes

from bench.assets import LIMIT, SIZE, f_score, truth_of
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.sampler import load
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import CELLS, Volume
from pipeline.multiview.volume_outline import as_shown
from pipeline.multiview.volume_views import LEVEL
from pipeline.prompt import Prompt
from pipeline.training.props import in_unit_ball, is_asked_for, load_props
from pipeline.training.views import reference_azimuth, reference_picture_of
from render.scene import Mesh


def mesh_of(volume: Volume) -> Mesh | None:
    """Of the cells that are the object's, in the unit ball; None where there are none."""
    probability = np.pad(volume.occupancy[0].float().sigmoid().numpy(), 1)
    if probability.max() <= LEVEL:
        return None
    zyx, faces, _, _ = marching_cubes(probability, LEVEL)
    vertices = ((zyx - 0.5) / CELLS * 2 - 1)[:, ::-1].astype(np.float32)
    return Mesh(in_unit_ball(vertices.copy()), faces[:, ::-1].astype(np.int32))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the training pack without its endings")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--volume", type=Path, help="folder of another volume network")
    given = parser.parse_args()
    sampler = load()
    network = sampler.volume
    if given.volume is not None:
        network = PictureVolume.from_pretrained(given.volume, dtype=sampler.transformer.dtype).eval()
    assert network is not None
    asked = [p for p in load_props(given.props) if p.split == "val" and is_asked_for(p)]
    scores: dict[str, list[float]] = {"as found": [], "outline known": []}
    for index in (i * len(asked) // given.count for i in range(given.count)):
        prop, rng = asked[index], np.random.default_rng([13, index])
        azimuth = reference_azimuth(rng)
        pixels, _ = reference_picture_of(prop, azimuth, SIZE, rng)
        (view,) = sampler.lifted(Prompt("", Image.fromarray(pixels, "RGBA")), SIZE)
        found = network(view.tokens, view.latents, view.features, view.framing)
        elevation = Framing.from_tensor(view.framing).elevation_rad
        truth = truth_of(prop, azimuth)
        kinds = (found, as_shown(found, view.shown, elevation))
        for name, volume in zip(scores, kinds, strict=True):
            mesh = mesh_of(volume)
            scores[name].append(0.0 if mesh is None else f_score(truth, mesh))
        print(f"{prop.caption} | " + " | ".join(f"{n} {s[-1]:.3f}" for n, s in scores.items()), flush=True)
    for name, values in scores.items():
        print(
            f"{name}: F at {LIMIT} {np.mean(values):.3f}, {np.mean(np.array(values) >= 0.75):.0%} over 0.75"
        )


if __name__ == "__main__":
    main()
