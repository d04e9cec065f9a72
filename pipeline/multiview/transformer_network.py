"""The multi-view diffusion transformer's network; `transformer` makes it a diffusers model.

A DiT (arXiv:2212.09748, AdaLN-Zero) whose tokens are 2x2 latent patches of all
views together; every token carries the camera ray of its patch. Blocks attend
within each view and over all views in turn (as in arXiv:2503.11651), so that the
views agree at some 70 % of the attention time that all of them always would take. Over all
views, every head looks round a point in space where each view sees it (`Sight`). Each view
has its own noise level: a view at noise 0 is a clean condition for the others
(as in arXiv:2407.01392), which is how further views of a finished object are
asked for, and how a picture is shown: as the view that it is nearly one of
(`lifter_network`). Text tokens join the attention over all views as keys and values;
they are not updated, which saves their share of every block.

The network predicts the flow-matching velocity `noise - clean` (arXiv:2210.02747,
arXiv:2403.03206) of `x_sigma = (1 - sigma) clean + sigma noise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from render.cameras import Cameras

PATCH = 2
_FOURIER_BANDS = 4
_AXES = 9
_RAY_FEATURES = _AXES + 5 * (1 + 2 * _FOURIER_BANDS)


def ray_features(cameras: Cameras, rows: int, columns: int) -> Float[Tensor, "C n f"]:
    """What each of the `rows x columns` patches of an orthographic view knows of its camera.

    The camera's axes; the point where the patch's ray crosses the plane through
    the origin, in the world and on that plane, with Fourier features
    (arXiv:2003.08934, Eq. 4).
    """
    patches = cameras.resized(columns, rows)
    fx, fy, cx, cy = patches.intrinsics[:, None, :].unbind(-1)
    pixels = patches.pixel_centers().reshape(1, -1, 2)
    x = (pixels[..., 0] - cx) / fx
    y = -(pixels[..., 1] - cy) / fy
    right, up, back = (cameras.c2w[:, None, :3, i] for i in range(3))
    point = x[..., None] * right + y[..., None] * up
    coordinates = torch.cat([point, x[..., None], y[..., None]], -1)
    bands = math.pi * 2.0 ** torch.arange(_FOURIER_BANDS, device=x.device, dtype=x.dtype)
    angles = (coordinates[..., None] * bands).flatten(-2)
    axes = torch.cat([right, up, back], -1).expand(-1, x.shape[1], -1)
    return torch.cat([axes, coordinates, angles.sin(), angles.cos()], -1)


def camera_features(axes: Float[Tensor, "*v 9"]) -> Float[Tensor, "*v 45"]:
    """Where a view is seen from: the camera's axes and two bands of Fourier features of them."""
    angles = torch.cat([math.pi * axes, 2 * math.pi * axes], -1)
    return torch.cat([axes, angles.sin(), angles.cos()], -1)


def noise_level_features(sigma: Float[Tensor, "*s"], width: int) -> Float[Tensor, "*s w"]:
    """Sinusoidal features of noise levels in [0, 1] (arXiv:1706.03762, on a scale of 1000)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=sigma.device) / half)
    angles = 1000.0 * sigma[..., None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m e"]
) -> Float[Tensor, "b h n e"]:
    """Dot-product attention of queries that are scaled already.

    On a CPU the plain form: for a few hundred tokens in bf16 it is two to four
    times as fast as torch's fused kernel, forward and backward (`bench/attention.py`).
    """
    if q.device.type == "cpu":
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


@dataclass(frozen=True)
class Rays:
    """The rays of the patches, as `Sight` needs them."""

    point: Float[Tensor, "b n 3"]
    """Where the ray crosses the plane through the origin that is square to it."""
    key: Float[Tensor, "b n 10"]

    @staticmethod
    def of(features: Float[Tensor, "b n f"]) -> Rays:
        """From `ray_features`."""
        back, point = features[..., 6:9], features[..., 9:12]
        square = point.square().sum(-1, keepdim=True)
        x, y, z = back.unbind(-1)
        across = torch.stack([1 - x * x, 1 - y * y, 1 - z * z, -2 * x * y, -2 * x * z, -2 * y * z], -1)
        return Rays(point, torch.cat([2 * point, -square, -across], -1))


class Sight(nn.Module):
    """Where the heads look: a term of the attention's logits, `-s |X - ray|^2`.

    Each head of a token chooses a point X in space, at first the one where the token's own ray
    crosses the plane through the origin, and a sharpness s. The squared distance at which a key's ray
    passes X is quadratic in X, and so the dot product of a vector of X with one of the ray. A
    head that has learnt the depth of its patch for X finds the pixels of the other views that see the
    same piece of surface, whatever the cameras: the epipolar search of stereo, in one step.
    """

    SHARPEST = 8.0
    """Scale of s, in units of the unit ball's radius^-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.choice = nn.Linear(width, 4 * heads)
        nn.init.zeros_(self.choice.weight)
        nn.init.zeros_(self.choice.bias)
        with torch.no_grad():
            self.choice.bias.view(heads, 4)[:, 3] = torch.linspace(0, 0.5, heads)

    def forward(self, x: Float[Tensor, "b n w"], rays: Rays) -> Float[Tensor, "b n h 10"]:
        """Query vectors; their dot product with `Rays.key` is the term."""
        b, n, _ = x.shape
        choice = self.choice(x).view(b, n, self.heads, 4)
        point = rays.point[:, :, None] + choice[..., :3]
        sharpness = self.SHARPEST * choice[..., 3:]
        px, py, pz = point.unbind(-1)
        products = torch.stack([px * px, py * py, pz * pz, px * py, px * pz, py * pz], -1)
        return sharpness * torch.cat([point, torch.ones_like(sharpness), products], -1)


class Attention(nn.Module):
    """Multi-head attention over the tokens and, if `cross`, a context; queries and keys normalised."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.context_kv = nn.Linear(width, 2 * width) if cross else None
        self.sight = Sight(width, heads) if cross else None
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n w"], context: Float[Tensor, "b m w"] | None, rays: Rays
    ) -> Float[Tensor, "b n w"]:
        b, n, w = x.shape
        dim = w // self.heads
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, dim).unbind(2)
        if self.context_kv is not None and context is not None:
            context_k, context_v = (
                self.context_kv(context).view(b, context.shape[1], 2, self.heads, dim).unbind(2)
            )
            k, v = torch.cat([k, context_k], 1), torch.cat([v, context_v], 1)
        q, k = F.layer_norm(q, (dim,)) * dim**-0.5, F.layer_norm(k, (dim,))
        if self.sight is not None:
            key = F.pad(rays.key, (0, 0, 0, k.shape[1] - n))[:, :, None].expand(-1, -1, self.heads, -1)
            q, k = torch.cat([q, self.sight(x, rays)], -1), torch.cat([k, key], -1)
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(b, n, w))
        return result


class Block(nn.Module):
    """AdaLN-Zero transformer block, over each view or over all; shift, scale and gate differ between views.

    Squared ReLU (arXiv:2109.08668) in the MLP: as good as GELU and cheaper on a CPU.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, modulation_rank: int, across_views: bool
    ) -> None:
        super().__init__()
        self.across_views = across_views
        self.attention = Attention(width, heads, cross=across_views)
        self.mlp_in = nn.Linear(width, mlp_ratio * width)
        self.mlp_out = nn.Linear(mlp_ratio * width, width)
        self.modulation = nn.Linear(modulation_rank, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "b v n w"],
        context: Float[Tensor, "b m w"],
        condition: Float[Tensor, "b v r"],
        rays: Rays,
    ) -> Float[Tensor, "b v n w"]:
        b, v, n, w = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, :, None].chunk(6, -1)
        hidden = torch.addcmul(shift1, F.layer_norm(x, (w,)), 1 + scale1)
        if self.across_views:
            attended = self.attention(hidden.view(b, v * n, w), context, rays).view(b, v, n, w)
        else:
            attended = self.attention(hidden.view(b * v, n, w), None, rays).view(b, v, n, w)
        x = torch.addcmul(x, gate1, attended)
        hidden = torch.addcmul(shift2, F.layer_norm(x, (w,)), 1 + scale2)
        return torch.addcmul(x, gate2, self.mlp_out(F.relu(self.mlp_in(hidden)).square()))


class ContextBlock(nn.Module):
    """Plain pre-norm transformer block for the context tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b m w"]) -> Float[Tensor, "b m w"]:
        b, m, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, m, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q = q * q.shape[-1] ** -0.5
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(b, m, w))
        result: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)), approximate="tanh"))
        return result


class TransformerNetwork(nn.Module):
    """Velocity of noisy multi-view latents; see the module's text."""

    def __init__(
        self,
        latent_channels: int = 16,
        width: int = 256,
        depth: int = 12,
        heads: int = 4,
        mlp_ratio: int = 4,
        text_width: int = 384,
        modulation_rank: int = 200,
    ) -> None:
        """`modulation_rank` numbers say to all blocks what is asked for and how noisy a view is: full
        matrices from `width` would be a quarter of the network (as in arXiv:2310.00426)."""
        super().__init__()
        self.latent_channels = latent_channels
        self.patch_in = nn.Linear(latent_channels * PATCH * PATCH, width)
        self.ray_mlp = nn.Sequential(nn.Linear(_RAY_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        # Beside the rays in the tokens: what a chair looks like turns on where it is seen from
        # (as in arXiv:2308.16512).
        to_condition = nn.Linear(width, width)
        nn.init.zeros_(to_condition.weight)
        nn.init.zeros_(to_condition.bias)
        self.camera_mlp = nn.Sequential(nn.Linear(5 * _AXES, width), nn.SiLU(), to_condition)
        self.noise_mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.text_in = nn.Linear(text_width, width)
        self.text_pooled = nn.Linear(text_width, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, modulation_rank, across_views=i % 2 == 1) for i in range(depth)
        )
        self.condition_in = nn.Linear(width, modulation_rank, bias=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.patch_out = nn.Linear(width, latent_channels * PATCH * PATCH)
        for layer in (self.final_modulation, self.patch_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def context(self, text: Float[Tensor, "b t e"]) -> tuple[Float[Tensor, "b t w"], Float[Tensor, "b w"]]:
        """Context tokens and their pooled summary, the same for every step of a sampling run.

        `text` holds the text encoder's token embeddings, zero at padding; all zero
        is the unconditional text.
        """
        count = (text.abs().amax(-1, keepdim=True) > 0).sum(1).clamp_min(1)
        return self.text_in(text), self.text_pooled(text.sum(1) / count)

    def forward(
        self,
        latents: Float[Tensor, "b v c h w"],
        sigma: Float[Tensor, "b v"],
        rays: Float[Tensor, "b v n f"],
        context: tuple[Float[Tensor, "b m e"], Float[Tensor, "b e"]],
    ) -> Float[Tensor, "b v c h w"]:
        """Velocity of each view's latents at its own noise level. `rays` is `ray_features` of each view."""
        b, v, c, h, w = latents.shape
        tokens, pooled = context
        rows, columns = h // PATCH, w // PATCH
        patches = latents.view(b, v, c, rows, PATCH, columns, PATCH).permute(0, 1, 3, 5, 2, 4, 6)
        x = self.patch_in(patches.reshape(b, v, rows * columns, c * PATCH * PATCH)) + self.ray_mlp(rays)
        level = self.noise_mlp(noise_level_features(sigma, 256).to(x.dtype))
        camera = self.camera_mlp(camera_features(rays[:, :, 0, :_AXES]))
        condition = F.silu(level + camera + pooled[:, None])
        crossing = Rays.of(rays.flatten(1, 2))
        told = self.condition_in(condition)
        for block in self.blocks:
            x = block(x, tokens, told, crossing)
        shift, scale = self.final_modulation(condition)[:, :, None].chunk(2, -1)
        x = self.patch_out(torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale))
        x = x.view(b, v, rows, columns, c, PATCH, PATCH).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, v, c, h, w)
