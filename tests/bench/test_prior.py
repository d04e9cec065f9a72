"""The evaluation: its measures on cases with known answers, and a whole run with tiny networks on boxes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bench.evaluator import (
    Judge,
    load_judge,
    names_alone,
    own_ranks,
    training_vectors,
)
from bench.prior import MARK, evaluate, update_docs
from bench.prior_measures import (
    FINISHES,
    OBJECTS,
    asked_colors,
    channel_psnr,
    color_is_right,
    compare,
    compositional_prompts,
    mask_iou,
)
from bench.prior_page import Row, table
from bench.prior_parts import NOVEL, Bench, as_believed
from bench.prior_samples import Sampler, Sampling, packed, unpacked
from pipeline.color_names import color_shares
from pipeline.multiview.codec import decode_gbuffer
from pipeline.multiview.critic_network import CriticNetwork, shrink
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.pipeline import MultiViewPipeline
from pipeline.multiview.text import TextEncoder
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from pipeline.training.critic_views import RING, greyed, painted, render_item
from pipeline.training.props import Prop, load_props
from pipeline.training.train_critic import CriticTraining, contrastive_loss, train_critic
from pipeline.training.views import Pose, cameras_of, network_images
from tests.conftest import BarrelPipeline, barrel_views
from tests.pipeline.training.test_props import box_prop, write_pack


def box_views(size: int = 32, **changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    image, known = network_images(box_prop(**changes), cameras_of(list(RING), size))
    return torch.from_numpy(image), torch.from_numpy(known)


def test_an_object_is_itself_to_who_knows_how_its_picture_is_framed() -> None:
    prop, azimuth = box_prop(), 30.0
    true = Framing.from_tensor(torch.tensor([[0.2, 0.5, 0.1, -0.1]]))
    same = as_believed(prop, azimuth, true, true)
    turned = [Pose(p.azimuth_deg + azimuth, p.elevation_deg) for p in NOVEL]
    image, known = network_images(prop, cameras_of(turned, 64))
    truth, weight = torch.from_numpy(image), torch.from_numpy(known)

    def iou(other: Prop) -> float:
        shown, _ = network_images(other, cameras_of(list(NOVEL), 64))
        return compare(torch.from_numpy(shown), truth, weight).iou

    assert iou(same) > 0.999
    # Who takes the picture to be magnified less thinks the object larger.
    less = as_believed(prop, azimuth, true, Framing.from_tensor(torch.tensor([[0.2, 0.4, 0.1, -0.1]])))
    np.testing.assert_allclose(
        np.linalg.norm(less.vertices, axis=1), 2**0.1 * np.linalg.norm(prop.vertices, axis=1), rtol=1e-4
    )
    higher = as_believed(prop, azimuth, true, Framing.from_tensor(torch.tensor([[0.5, 0.5, 0.1, -0.1]])))
    np.testing.assert_allclose(
        np.linalg.norm(higher.vertices, axis=1), np.linalg.norm(prop.vertices, axis=1), rtol=1e-4
    )
    assert iou(higher) < 0.95
    # From the height that is believed, it looks as it does from the true one.
    views = (cameras_of([Pose(a, math.degrees(e))], 64) for a, e in ((0.0, 0.5), (azimuth, 0.2)))
    one, other = (
        torch.from_numpy(network_images(p, c)[0]) for p, c in zip((higher, prop), views, strict=True)
    )
    assert compare(one, other, torch.ones(1, 64, 64)).iou > 0.99


def test_the_truth_differs_in_nothing_from_itself() -> None:
    image, known = box_views()
    same = compare(image, image, known)
    assert same.iou == 1
    assert same.psnr_db == pytest.approx(100)
    assert same.normal_deg < 0.1
    assert (same.depth, same.metallic_right, same.roughness) == (0, 1, 0)


def test_differences_are_what_was_changed() -> None:
    image, known = box_views()
    cover = image[:, 3:4] > 0
    changed = image.clone()
    changed[:, 7:8] += 0.1 * cover
    changed[:, 0:3] += 0.2 * cover  # 0.1 in [0, 1]
    changed[:, 8:9] = torch.where(cover, 1.0, changed[:, 8:9])
    found = compare(changed, image, known)
    assert found.depth == pytest.approx(0.1, abs=1e-5)
    assert found.metallic_right == 0
    assert found.psnr_common_db == pytest.approx(20, abs=0.6)  # the brightest channel is clipped
    half = image.clone()
    half[:, :, :, :16] = 0
    half[:, 3, :, :16] = -1
    assert compare(half, image, known).iou == pytest.approx(0.5, abs=0.05)
    unknown = compare(image, image, torch.zeros_like(known))
    assert math.isnan(unknown.metallic_right)


def test_channel_psnr_of_a_known_error() -> None:
    image, known = box_views()
    noisy = image.clone()
    noisy[:, 7] += 0.02  # a hundredth of the range of 2
    assert channel_psnr(noisy, image, known)["height"] == pytest.approx(40, abs=0.01)
    assert channel_psnr(noisy, image, known)["base colour"] == pytest.approx(100)


def test_colours_and_metal_are_read_from_pixels() -> None:
    image, _ = box_views()
    red = decode_gbuffer(image, cameras_of(list(RING), 32))
    shares = color_shares(red)
    assert shares["red"] == 1
    assert color_is_right(shares, ("red", "dark red")) == (1, True)
    assert color_is_right(shares, ("blue",)) == (0, False)
    mixed = dict.fromkeys(shares, 0.0) | {"red": 0.4, "blue": 0.3, "dark blue": 0.3}
    assert color_is_right(mixed, ("red",)) == (0.4, False)  # blues are one family
    empty = decode_gbuffer(torch.zeros(4, 10, 32, 32) - 1, cameras_of(list(RING), 32))
    assert color_is_right(color_shares(empty), ("red",)) == (0, False)


def test_colour_words_of_captions() -> None:
    assert asked_colors("a dark red bow evil") == ("red", "dark red")
    assert asked_colors("wooden crate") == ()


def test_prompts_hold_every_object_and_finish_alike() -> None:
    prompts = compositional_prompts()
    assert len({text for text, _, _ in prompts}) == 100
    for first in (10, 20, 50, 100):
        for name in OBJECTS:
            assert sum(n == name for _, n, _ in prompts[:first]) == first // 10
        for finish in FINISHES:
            assert sum(f == finish for _, _, f in prompts[:first]) == first // 10


def test_ranks_count_what_is_nearer_and_ties_against() -> None:
    texts = torch.eye(4)
    objects = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.4, 0, 0], [0.0, 0, 0, 0]])
    np.testing.assert_array_equal(own_ranks(objects, texts, [0, 1, 2]), [0, 1, 3])


def test_names_alone_have_no_colours() -> None:
    texts, own = names_alone([box_prop(), box_prop(caption="red crate"), box_prop(caption="lamp")])
    assert texts == ["grey crate", "grey lamp"]
    assert own == [0, 0, 1]


def test_greyed_views_keep_only_their_shape() -> None:
    red, blue = box_views()[0], box_views(colors=np.full((8, 3), (20, 20, 200), np.uint8))[0]
    torch.testing.assert_close(greyed(red), greyed(blue))
    torch.testing.assert_close(greyed(red)[:, 3:8], red[:, 3:8])


def test_stored_samples_come_back() -> None:
    views = barrel_views(cameras_of(list(RING), 64))
    again = unpacked(packed(views.gbuffer))
    assert mask_iou(views.gbuffer, again) == 1
    for name, tolerance in (("base_color_srgb", 0.002), ("depth", 1e-4), ("normal", 0.01)):
        torch.testing.assert_close(
            again.channels()[name], views.gbuffer.channels()[name], atol=tolerance, rtol=0
        )


def test_a_sample_is_drawn_once(tmp_path: Path) -> None:
    model, cameras = BarrelPipeline(), cameras_of(list(RING), 32)
    sampling = Sampling({"transformer/w": "one", "lifter/w": "one"}, 2, 1.0)
    first = Sampler(model, sampling, tmp_path).views(Prompt("barrel"), cameras, 0)
    again = Sampler(model, sampling, tmp_path)
    torch.testing.assert_close(again.views(Prompt("barrel"), cameras, 0).gbuffer.alpha, first.gbuffer.alpha)
    assert (model.calls, again.drawn) == (1, 0)
    again.views(Prompt("barrel"), cameras, 1)
    Sampler(model, Sampling({"transformer/w": "two"}, 2, 1.0), tmp_path).views(Prompt("barrel"), cameras, 0)
    assert model.calls == 3
    # Other weights that read pictures are nothing to a text.
    other = Sampler(model, Sampling({"transformer/w": "one", "lifter/w": "two"}, 2, 1.0), tmp_path)
    other.views(Prompt("barrel"), cameras, 0)
    assert model.calls == 3
    picture = Prompt("barrel", Image.new("RGBA", (32, 32), (9, 9, 9, 255)))
    other.views(picture, cameras, 0)
    Sampler(model, sampling, tmp_path).views(picture, cameras, 0)
    assert model.calls == 5


def test_shrinking_keeps_colours_at_rims() -> None:
    image, _ = box_views(128)
    small, direct = shrink(image, 32), box_views(32)[0]
    cover = (small[:, 3] > -0.9) & (direct[:, 3] > -0.9)
    reds = small[:, 0][cover]
    torch.testing.assert_close(reds, torch.full_like(reds, 200 / 127.5 - 1), atol=1e-3, rtol=0)


def test_painting_changes_colour_material_and_words() -> None:
    for seed in range(6):
        made, foils = painted(box_prop(caption="red crate"), np.random.default_rng(seed))
        assert made.caption.endswith("crate")
        assert made.caption not in foils
        assert len(set(made.metallic.tolist())) == 1
        assert (made.metallic[0] == 1) == ("metal" in made.caption)


def test_the_right_caption_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = CriticNetwork(16).eval()
    own = torch.nn.functional.normalize(torch.randn(6, 384), dim=-1)
    rest = torch.nn.functional.normalize(torch.randn(20, 384), dim=-1)
    foils = rest[:12].view(6, 2, 384)
    items = torch.arange(6)
    right = contrastive_loss(model, own, own, rest, foils, items)
    wrong = contrastive_loss(model, own.roll(1, 0), own, rest, foils, items)
    assert right < 0.1 < wrong


def test_judge_may_not_see_val_objects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training objects only"):
        train_critic([box_prop(split="val")], WordlessEncoder(), CriticTraining(steps=1))


def test_table_says_what_misses_its_bar() -> None:
    text = table([
        Row("novel", "mask IoU", 0.5, 12, bar=0.85),
        Row("autoencoder", "normals", 7.0, 12, "degrees", 8.0, lower_is_better=True),
        Row("novel", "nothing known", math.nan, 0),
    ])  # fmt: skip
    assert "| 0.5 | 12 | >= 0.85: MISSED |" in text
    assert "| 7 degrees | 12 | <= 8: reached |" in text
    assert "| none | 0 |" in text


class WordlessEncoder(TextEncoder):
    """Stands in for MiniLM: a fixed random vector for every text."""

    def __init__(self) -> None:
        pass

    def tokens(self, texts: list[str], length: int = 24) -> torch.Tensor:
        seeds = [sum(text.encode()) for text in texts]
        return torch.stack([torch.randn(1, 384, generator=torch.Generator().manual_seed(s)) for s in seeds])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_multiview_pipeline: MultiViewPipeline) -> Path:
    """A whole run with two samples a part."""
    folder = tmp_path_factory.mktemp("prior")
    write_pack(folder / "props", 3)
    props = [*load_props(folder / "props"), box_prop(split="val", caption="lamp"), box_prop(split="val")]
    torch.manual_seed(0)
    model = CriticNetwork(8).eval().requires_grad_(False)
    vectors = training_vectors(model, [p for p in props if p.split == "train"])
    judge = Judge(model, WordlessEncoder(), "tiny", vectors)
    barrels = BarrelPipeline()
    stand_in = SimpleNamespace(
        autoencoder=tiny_multiview_pipeline.autoencoder,
        transformer=tiny_multiview_pipeline.transformer,
        lifter=PictureLifter(width=32, heads=2, depth=1).eval(),
    )
    config = ViewsConfig(
        azimuths_deg=(0.0, 90.0, 180.0, 270.0), elevations_deg=(15.0,) * 4, size_px=64, num_inference_steps=1
    )
    out = folder / "out"
    bench = Bench(
        props=props,
        pipeline=stand_in,  # type: ignore[arg-type]
        sampler=Sampler(barrels, Sampling({"transformer/w": "tiny"}, 1, 1.0), out / "samples"),
        judge=judge,
        config=config,
        out=out,
        count=2,
        seeds=2,
        said=lambda text: None,
    )
    header = {"model": "tiny", "revision": "0"}
    parts = ("autoencoder", "novel", "captions", "compositional", "diversity", "memory")
    evaluate(bench, parts[:5], header)
    first = (out / "report.json").read_bytes()
    calls = barrels.calls
    evaluate(bench, parts[:5], header)
    assert (out / "report.json").read_bytes() == first
    assert barrels.calls == calls, "a second run draws nothing"
    evaluate(bench, parts[5:], header)
    return out


def test_report_has_every_part_with_its_numbers_of_objects(report: Path) -> None:
    rows = json.loads((report / "report.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {
        "autoencoder", "novel", "captions", "compositional", "diversity", "memory",
    }  # fmt: skip
    found = {(row["part"], row["measure"]): row for row in rows}
    assert found["novel", "mask IoU"]["objects"] == 2
    assert found["novel", "ceiling: mask IoU of the true object, framed so"]["objects"] == 2
    assert 0 < found["novel", "mask IoU"]["value"] < 1
    # The stand-in draws the same exact barrel whatever is asked for.
    agreement = found["compositional", "views agree: points that no view contradicts"]
    assert agreement["value"] > 0.97
    assert found["diversity", "mask IoU between seeds"]["value"] == 1
    assert found["diversity", "distance between seeds of a prompt"]["value"] == pytest.approx(0, abs=1e-5)


def test_report_shows_its_pictures(report: Path) -> None:
    page = (report / "report.md").read_text()
    pictures = sorted(path.name for path in report.glob("*.png"))
    assert len(pictures) >= 7
    for name in pictures:
        assert f"({name})" in page


def test_results_replace_those_before_them(tmp_path: Path) -> None:
    page = tmp_path / "evaluation.md"
    page.write_text(f"# Title\n\n{MARK}\n\nold\n")
    update_docs(page, {"revision": "abc", "count": 16}, "| table |")
    assert page.read_text() == f"# Title\n\n{MARK}\n\nrevision abc, count 16\n\n| table |\n"
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match="lacks the line"):
        update_docs(page, {}, "")


def test_a_small_judge_trains_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.evaluator

    monkeypatch.setattr(bench.evaluator, "TextEncoder", WordlessEncoder)
    write_pack(tmp_path / "props", 6)
    props = list(load_props(tmp_path / "props"))
    config = CriticTraining(width=8, steps=3, objects_per_batch=8, bank=4, free_views=1)
    first = load_judge(tmp_path / "props", props, config, tmp_path)
    again = load_judge(tmp_path / "props", props, config, tmp_path)
    assert len(list(tmp_path.glob("judge-*.safetensors"))) == 1
    torch.testing.assert_close(first.training, again.training)
    image = [torch.from_numpy(render_item(props[0], [Pose(0.0, 15.0)]))]
    torch.testing.assert_close(first.objects(image), again.objects(image))
