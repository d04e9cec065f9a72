"""Picture policies: what ships, a plugin, where a run asks them, and that nothing passes unscreened."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import trimesh
from PIL import Image

from pipeline.cli import invoke
from pipeline.picture_hash import picture_hash
from pipeline.picture_safety import Origin, PicturePolicy, picture_policy, screen_pictures
from pipeline.preset import PreviewConfig, ViewsConfig
from pipeline.prompt import Prompt
from pipeline.run import generate, prepare_image
from pipeline.safety import RefusedError, Verdict
from pipeline.source import ModelSource
from pipeline.stages import DRAWN_FILE, SCREENING_FILE, draw_views, load_drawn, load_verdict, preview
from render.cameras import orbit_cameras
from render.errors import InputError
from tests.conftest import BarrelPipeline, barrel, barrel_views
from tests.pipeline.picture_plugin import NoRed
from tests.pipeline.test_end_to_end import QUICK

PLUGIN = "tests.pipeline.picture_plugin"
RED, BLUE = (Image.new("RGB", (64, 64), color) for color in ("red", "blue"))
CRATE = Path(__file__).parents[2] / "assets" / "samples" / "crate.png"


def crate() -> Image.Image:
    with Image.open(CRATE) as picture:
        return picture.convert("RGBA")


def test_what_ships_says_that_it_judges_nothing():
    verdict = screen_pictures(picture_policy(), [RED], "picture")
    assert (verdict.allowed, verdict.screened, verdict.subject) == (True, False, "picture")
    assert "no classifier" in verdict.reason
    assert not screen_pictures(picture_policy("none"), [RED], "views").screened


def test_a_listed_picture_is_refused_whatever_was_done_to_it(tmp_path: Path):
    path = tmp_path / "known.txt"
    path.write_text(f"{picture_hash(crate()).hex},case 12\n")
    policy = picture_policy("offline", path)
    smaller = crate().resize((200, 200)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    with pytest.raises(RefusedError, match=r"known_picture.*case 12.*Give another picture") as caught:
        screen_pictures(policy, [BLUE, smaller], "picture")
    assert caught.value.verdict.subject == "picture"
    passed = screen_pictures(policy, [BLUE], "picture")
    assert (passed.screened, passed.reason) == (
        False,
        "none of 1 known pictures; what is shown was not judged",
    )


def test_another_list_is_another_policy(tmp_path: Path):
    names = set()
    for digit in "01":
        path = tmp_path / f"{digit}.txt"
        path.write_text(digit * 64)
        names.add(picture_policy("offline", path).name)
    assert len(names | {picture_policy().name}) == 3


def test_a_plugin_is_loaded_once_and_asked():
    policy = picture_policy(f"{PLUGIN}:no_red")
    assert policy is picture_policy(f"{PLUGIN}:no_red")
    assert screen_pictures(policy, [BLUE], "picture", "a crate").score == 0.0
    with pytest.raises(RefusedError, match=r"'no-red-1 0.5' \(red\): 100% of it is red"):
        screen_pictures(policy, [BLUE, RED], "picture")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("strict", "offline, none or module:function, not 'strict'"),
        ("pipeline.no_such:policy", "cannot be loaded: No module"),
        (f"{PLUGIN}:no_such", "cannot be loaded"),
        (f"{PLUGIN}:nothing", "must give an object with name, light and screen"),
        (":policy", "module:function"),
    ],
)
def test_what_cannot_be_loaded_is_said(asked: str, message: str):
    with pytest.raises(InputError, match=message):
        picture_policy(asked)


def test_a_list_goes_with_the_offline_policy_alone(tmp_path: Path):
    with pytest.raises(InputError, match="goes with the policy 'offline'"):
        picture_policy("none", tmp_path / "known.txt")


class Broken:
    name = "broken"
    light = True

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        return None  # type: ignore[return-value]


def test_no_verdict_is_no_pass():
    assert isinstance(Broken(), PicturePolicy)
    with pytest.raises(TypeError, match="gave no verdict but NoneType"):
        screen_pictures(Broken(), [RED], "asset")


def test_a_refusal_survives_pickling():
    error = RefusedError(Verdict(False, "p", "red", "it is red", 1.0, subject="asset"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.verdict) == (str(error), error.verdict)
    assert "Another prompt or seed may pass" in str(error)


def test_a_users_picture_is_screened_whole_before_it_is_cut_out():
    policy = NoRed()
    picture = Image.new("RGBA", (96, 96), "red")
    picture.paste((0, 80, 200), (24, 24, 72, 72))
    with pytest.raises(RefusedError, match="75% of it is red"):
        prepare_image(picture, policy)
    assert policy.asked == [("picture", 1, "")]


def test_pictures_by_the_sides_that_they_show():
    square = Image.new("RGBA", (96, 96))
    red, blue = square.copy(), square.resize((64, 64))
    red.paste((255, 0, 0, 255), (24, 24, 72, 72))
    blue.paste((0, 0, 255, 255), (16, 16, 48, 48))
    policy = NoRed(share=1.1)
    row = prepare_image({"left": blue, "front": red}, policy)
    assert row is not None
    assert len(policy.asked) == 2
    assert row.width == 4 * row.height
    prompt = Prompt(image=row)
    assert prompt.azimuths_deg == (0.0, 270.0)
    middle = row.height // 2
    assert [picture.getpixel((middle, middle)) for picture in prompt.pictures] == [
        (255, 0, 0, 255),
        (0, 0, 255, 255),
    ]
    alone = prepare_image({"front": red}, policy)
    assert alone is not None
    assert alone.width == alone.height
    for wrong in ({"back": blue}, {"front": red, "top": blue}):
        with pytest.raises(InputError, match="a picture of the front, and of others of front, right"):
            prepare_image(wrong, policy)  # type: ignore[arg-type]


def test_drawn_views_are_shown_to_the_policy(tmp_path: Path):
    policy = NoRed(share=1.1)
    config = ViewsConfig(size_px=64, num_inference_steps=1)
    picture = Image.new("RGBA", (64, 64), "blue")
    source = ModelSource(model=BarrelPipeline())
    draw_views(tmp_path, Prompt("a barrel", picture), config, 0, source, screening=policy)
    assert policy.asked == [("picture", 1, "a barrel"), ("views", 10, "a barrel")]
    drawn = load_drawn(tmp_path / "views.json")
    assert drawn.safety is not None
    assert (drawn.safety.subject, drawn.safety.policy) == ("prompt", "offline-1")
    given, views = drawn.screenings
    assert (given.subject, views.subject, given.score) == ("picture", "views", 0.0)
    # The barrel is brown over white: what the policy was shown has it in it.
    assert views.score > 0.1


def test_the_finished_asset_is_shown_to_the_policy(tmp_path: Path):
    mesh = barrel()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=(150, 60, 20, 255))
    mesh.export(tmp_path / "barrel.glb")
    barrel_views(orbit_cameras([0.0], [15.0], 64)).save(tmp_path / DRAWN_FILE)
    policy, config = NoRed(share=1.1), PreviewConfig(size_px=96, turntable_frames=0)
    preview(tmp_path, tmp_path, tmp_path / "barrel.glb", config, text="a barrel", screening=policy)
    assert policy.asked == [("asset", 4, "a barrel")]
    verdict = load_verdict(tmp_path / SCREENING_FILE)
    assert (verdict.subject, verdict.policy) == ("asset", "no-red-1 1.1")
    assert verdict.score > 0.1
    out = tmp_path / "refused"
    out.mkdir()
    with pytest.raises(RefusedError, match="what was made was screened"):
        preview(out, tmp_path, tmp_path / "barrel.glb", config, screening=NoRed(share=0.1))
    assert list(out.iterdir()) == []


def test_refused_views_are_not_kept(tmp_path: Path):
    with pytest.raises(RefusedError, match="what was made was screened"):
        generate(
            "a barrel",
            out=tmp_path,
            preset=QUICK,
            model=BarrelPipeline(),
            screening=NoRed(0.05, only="views"),
        )
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.png"))


def test_the_command_screens_and_makes_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert invoke(["screen", "--hash", str(CRATE)]) == 0
    known = tmp_path / "known.txt"
    known.write_text(capsys.readouterr().out)
    assert invoke(["screen", str(CRATE), "--prompt", "a crate"]) == 0
    said = capsys.readouterr().out
    assert "prompt: passed by offline-1" in said
    assert "crate.png: not judged by offline-1" in said
    assert invoke(["screen", str(CRATE), "--known-pictures", str(known)]) == 2
    said, error = capsys.readouterr()
    assert "crate.png: refused (known_picture)" in said
    assert error == "1 of 1 refused.\n"
    assert invoke(["screen", "--hash", str(CRATE.with_name("sword.png"))]) == 2
    assert "too flat" in capsys.readouterr().err
    assert invoke(["screen"]) == 2
    assert capsys.readouterr().err == "Give pictures, or --prompt.\n"
