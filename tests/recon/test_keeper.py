"""A fit that was stopped at any step and gone on with makes the bytes of one that was never stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recon.fields import GaussianField, SdfField, SeedConfig
from recon.fit import FitConfig, FitReport, fit_views
from recon.fit_photos import PhotoConfig
from recon.fit_sdf import NerfConfig
from recon.guidance import Objective
from recon.keeper import Forgetful, Keeper, Snapshot
from render.cameras import Cameras
from render.errors import CanceledError
from render.gbuffer import GBuffer
from render.progress import Progress, silent
from tests.recon.test_fields_gaussians import AZIMUTHS, ELEVATIONS, sphere_views
from tests.recon.test_fit_photos import ball_photos


class Latest:
    """A keeper of the last snapshot, as a file would have it."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] | None = None

    def load(self) -> Snapshot | None:
        return None if self.tensors is None else Snapshot.of(self.tensors)

    def offer(self, snapshot: Callable[[], Snapshot]) -> None:
        self.tensors = {name: value.detach().clone() for name, value in snapshot().tensors().items()}


class Opinion:
    """Guidance with random numbers of its own, of which every look uses some."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    def objective(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Objective:
        self.looks.append(fraction)
        assert rendered.base_color_srgb is not None
        noise = torch.rand(rendered.base_color_srgb.shape, generator=generator)
        wanted = (0.5 * rendered.base_color_srgb + 0.5 * noise).detach()

        def pull(again: GBuffer) -> Tensor:
            assert again.base_color_srgb is not None
            return (again.base_color_srgb - wanted).square().mean()

        return pull

    def loss(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Tensor:
        return self.objective(rendered, cameras, fraction, generator)(rendered)


SPHERE = sphere_views(AZIMUTHS[:4], ELEVATIONS[:4], 24)
GAUSSIANS = FitConfig(steps=6)
GUIDED = FitConfig(
    steps=3, guidance_steps=7, guidance_reuse_steps=3, guidance_views=2, guidance_size=16, views_per_step=3
)
PHOTOS = FitConfig(photos=PhotoConfig(steps=6))
NERF = FitConfig(field="nerf", nerf=NerfConfig(steps=36, rays=64, max_voxels=10_000))


class StopAt:
    """Cancels before a step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, fraction: float, message: str = "") -> None:
        if message in ("fitting", "refining"):
            if self.left == 0:
                raise CanceledError("stopped")
            self.left -= 1


def fitted(
    config: FitConfig, keeper: Keeper, progress: Progress = silent, opinion: Opinion | None = None
) -> tuple[GaussianField | SdfField, FitReport]:
    return fit_views(
        ball_photos(5, 24) if config is PHOTOS else SPHERE,
        SeedConfig(max_gaussians=300),
        config,
        guidance=(opinion or Opinion()) if config is GUIDED else None,
        generator=torch.Generator().manual_seed(7),
        progress=progress,
        keeper=keeper,
    )


@pytest.mark.parametrize(
    ("config", "stops", "boundary"),
    [
        pytest.param(GAUSSIANS, range(6), lambda step: step, id="gaussians"),
        # A look serves three steps: what is gone on from lies before it.
        pytest.param(GUIDED, range(10), lambda step: step if step < 3 else 3 * (step // 3), id="guided"),
        # Discs are split before steps 2 and 3.
        pytest.param(PHOTOS, (1, 2, 3, 5), lambda step: step, id="photos"),
        pytest.param(NERF, (0, 15, 16, 33, 35), lambda step: step // 16 * 16, id="nerf"),
    ],
)
def test_stopped_at_any_step_it_goes_on_to_the_same_bytes(
    config: FitConfig, stops: range | tuple[int, ...], boundary: Callable[[int], int]
) -> None:
    field, report = fitted(config, Forgetful())
    state = field.state_dict()
    for stop in stops:
        keeper = Latest()
        with pytest.raises(CanceledError):
            fitted(config, keeper, StopAt(stop))
        kept = keeper.load()
        assert kept is not None
        assert (kept.step, len(kept.losses)) == (boundary(stop), boundary(stop))
        # And stopped once more on the way, before the fit's end.
        with pytest.raises(CanceledError):
            fitted(config, keeper, StopAt(stop + 1 - kept.step if stop + 1 < report.steps else 0))
        again, resumed = fitted(config, keeper)
        ours = again.state_dict()
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[name], state[name]) for name in state), stop
        assert resumed.losses == report.losses
        assert resumed.guidance_losses == report.guidance_losses
        assert resumed.steps == report.steps
        assert (resumed.psnr_db, resumed.iou) == (report.psnr_db, report.iou)


def test_only_the_steps_that_are_left_are_done_and_only_their_looks() -> None:
    keeper, opinion = Latest(), Opinion()
    with pytest.raises(CanceledError):
        fitted(GUIDED, keeper, StopAt(8), opinion)
    assert len(opinion.looks) == 2
    seen: list[float] = []
    rest = Opinion()
    fitted(GUIDED, keeper, lambda fraction, message="": seen.append(fraction), rest)
    assert seen == [*(step / 10 for step in range(6, 10)), 1.0]
    assert rest.looks == [3 / 7, 6 / 7]


def test_a_snapshot_is_exact_as_tensors() -> None:
    losses = [0.1, 1 / 3, float(torch.tensor(0.7))]
    snapshot = Snapshot(3, losses, torch.Generator().manual_seed(1).get_state(), {"a": torch.ones(2)}, {})
    again = Snapshot.of(snapshot.tensors())
    assert (again.step, again.losses) == (3, losses)
    assert torch.equal(again.generator, snapshot.generator)
    assert torch.equal(again.leaves["a"], torch.ones(2))
    assert (again.optimizer, again.extra) == ({}, {})
