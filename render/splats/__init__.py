"""Differentiable rasterisation of 3D Gaussians that carry arbitrary channels.

`rasterize_splats` is the public function; `render.splats.reference` is the plain
torch twin that the kernels are tested against.
"""

from render.splats.rasterize import SplatImages, rasterize_splats

__all__ = ["SplatImages", "rasterize_splats"]
