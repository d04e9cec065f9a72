"""The web page in headless Chromium: from request to viewed asset, variants, errors, cancel, reconnect.

Needs Chromium: `apt-get install chromium-headless-shell`, or `playwright install chromium`; and the viewer
(`scripts/web-vendor.sh`).
"""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from recon.asset import Asset
from recon.export.splat import spz_bytes
from recon.fields.gaussians import GaussianField
from render.scene import Material
from tests.recon.mesh_field import as_mesh
from tests.worker.api.conftest import MakeWorld, World, png, serving_world

pytestmark = [pytest.mark.slow, pytest.mark.browser]
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose own errors and broken policies fail the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield page
    page.close()
    assert wrong == []


def two_coloured_ball() -> bytes:
    """Splats of a ball, red above and blue below its middle."""
    ball = trimesh.creation.icosphere(4, 0.5)
    means = torch.from_numpy(ball.vertices.astype(np.float32))
    turned = torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]]).expand_as(means), means)  # +Z onto the normal
    quats = torch.cat([0.5 + means[:, 2:], turned], 1)
    quats[quats.norm(dim=1) < 1e-3] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    red = (means[:, 1:2] > 0).float()
    count = len(means)
    field = GaussianField(
        means=means,
        quats=torch.nn.functional.normalize(quats, dim=1),
        log_scales=torch.full((count, 2), -3.6),
        opacity_logits=torch.full((count,), 4.0),
        base_color_srgb=torch.cat([0.1 + 0.8 * red, torch.full((count, 1), 0.1), 0.9 - 0.8 * red], 1),
        metallic=torch.zeros(count, 1),
        roughness=torch.ones(count, 1),
    )
    one = np.ones((1, 1), np.float32)
    material = Material(np.full((1, 1, 3), 0.5, np.float32), one, one)
    return spz_bytes(Asset(mesh=as_mesh(ball), material=material, name="ball", height_m=1.0, splats=field))


@pytest.fixture
def lively(world: World) -> World:
    world.worker.glb = trimesh.creation.box().export(file_type="glb")
    world.worker.spz = two_coloured_ball()
    return world


def drawn_after(canvas: Locator, key: str, times: int = 1) -> np.ndarray:
    """What the canvas shows after a key was pressed, RGB over white. (Read in the frame that draws it: later
    the buffer is gone, and a screenshot of software WebGL takes longer than a busy machine waits.)"""
    press = """(canvas, [key, times]) => new Promise((done) => {
      for (let i = 0; i < times; i++) canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
      requestAnimationFrame(() => done(canvas.toDataURL()));
    })"""
    data = base64.b64decode(canvas.evaluate(press, [key, times]).partition(",")[2])
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB")).astype(int)


def wait_for_model(page: Page) -> None:
    """The viewer shows it. (Playwright's own waiting evaluates text, which the page's policy forbids.)"""
    page.locator("model-viewer").wait_for()
    until = time.monotonic() + WAIT_MS / 1000
    while not page.locator("model-viewer").evaluate("viewer => viewer.loaded"):
        assert time.monotonic() < until
        time.sleep(0.1)


def ask(page: Page, host: str, text: str) -> None:
    page.goto(host)
    page.get_by_label("What to make").fill(text)
    page.keyboard.press("Control+Enter")


def test_from_request_to_viewed_asset(page: Page, lively: World):
    with serving_world(lively) as host:
        ask(page, host, "a red barrel")
        expect(page.get_by_role("heading", name="a red barrel")).to_be_visible()
        expect(page.locator(".steps li[data-state=done]").first).to_be_visible(timeout=WAIT_MS)
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        wait_for_model(page)
        for key, mode in (("2", "base"), ("3", "normal"), ("4", "rough"), ("5", "wire"), ("1", "shaded")):
            page.locator("h1").click()
            page.keyboard.press(key)
            expect(page.locator(f".tool[data-mode={mode}]")).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".report li").first).to_be_visible()
        with page.expect_download() as download:
            page.locator("a.download", has_text="asset.glb").click()
        assert Path(download.value.path()).read_bytes() == lively.worker.glb
        page.get_by_role("button", name="Share").click()
        link = page.get_by_label("The link").input_value()
        page.goto(link)
        wait_for_model(page)
        expect(page.locator("a.download")).to_have_count(0)


def test_the_splats_it_came_from(page: Page, lively: World):
    with serving_world(lively, pause_s=0.05) as host:
        ask(page, host, "a ball")
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        wait_for_model(page)
        page.locator("h1").click()
        page.keyboard.press("s")
        canvas = page.locator("canvas.splats[data-drawn]")
        expect(canvas).to_be_visible(timeout=WAIT_MS)
        expect(page.locator("model-viewer")).to_be_hidden()
        expect(page.get_by_role("button", name="Splats")).to_have_attribute("aria-pressed", "true")
        seen = drawn_after(canvas, "ArrowLeft")
        red, blue = seen[..., 0] - seen[..., 2] > 90, seen[..., 2] - seen[..., 0] > 90
        rows, columns = np.nonzero(red | blue)
        # A ball, as large as the frame of the first view says, round and red above.
        assert 0.5 < (np.ptp(rows) + 1) / len(seen) < 0.95
        assert abs(np.ptp(rows) - np.ptp(columns)) < 0.08 * np.ptp(rows)
        area = np.pi / 4 * np.ptp(rows) * np.ptp(columns)
        assert 0.85 < (red | blue).sum() / area < 1.1
        assert np.nonzero(red)[0].mean() + 0.2 * np.ptp(rows) < np.nonzero(blue)[0].mean()
        # Looked at from above it is red; the keyboard orbits.
        seen = drawn_after(canvas, "ArrowUp", 12)
        assert (seen[..., 2] - seen[..., 0] > 90).sum() < 0.02 * (seen[..., 0] - seen[..., 2] > 90).sum()
        page.keyboard.press("2")
        expect(page.locator("model-viewer")).to_be_visible()
        expect(canvas).to_be_hidden()
        expect(page.locator(".tool[data-mode=base]")).to_have_attribute("aria-pressed", "true")


def test_damaged_splats_leave_the_mesh(page: Page, lively: World):
    assert lively.worker.spz is not None
    lively.worker.spz = lively.worker.spz[:200]
    with serving_world(lively, pause_s=0.05) as host:
        ask(page, host, "a ball")
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        wait_for_model(page)
        page.get_by_role("button", name="Splats").click()
        expect(page.locator(".toast")).to_be_visible(timeout=WAIT_MS)
        expect(page.locator("model-viewer")).to_be_visible()
        expect(page.locator("canvas.splats")).to_have_count(0)


def test_pictures_appear_as_stages_are_done(page: Page, lively: World):
    with serving_world(lively, pause_s=600) as host:
        ask(page, host, "a red barrel")
        expect(page.locator(".state")).to_contain_text("Waiting")
        for number, name in enumerate(("views", "field", "surface", "mesh", "texture"), 1):
            lively.worker.work(1)
            shown = page.locator(".way figure")
            expect(shown).to_have_count(number, timeout=WAIT_MS)
            # The newest first.
            expect(shown.first).to_have_attribute("data-name", f"{name}.png")
            expect(shown.first.locator("img")).to_be_visible()
        lively.worker.work()
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        expect(page.locator(".way figure").first).to_have_attribute("data-name", "views.png")


def test_a_new_look(page: Page, lively: World):
    with serving_world(lively, pause_s=0.05) as host:
        ask(page, host, "a red barrel")
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        page.get_by_label("The whole object in its new look").fill("a golden barrel")
        page.get_by_role("button", name="Paint").click()
        expect(page.get_by_role("heading", name="a golden barrel")).to_be_visible(timeout=WAIT_MS)
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
    assert {job.kind for job in lively.service.jobs.find()} == {"generate", "retexture"}


def test_picking_a_variant(page: Page, lively: World):
    with serving_world(lively, pause_s=1.0) as host:
        page.goto(host)
        page.get_by_title("Draw four, pick one").click()
        page.get_by_label("What to make").fill("a crate")
        page.get_by_role("button", name="Make it").click()
        page.locator(".variant").nth(2).click()
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
    kept = lively.service.jobs.find(state="succeeded")
    assert [job.params["seed"] for job in kept] == [2]


def test_a_dropped_picture(page: Page, lively: World, tmp_path: Path):
    (tmp_path / "chair.png").write_bytes(png(90))
    (tmp_path / "broken.png").write_bytes(png(90)[:50])
    with serving_world(lively) as host:
        page.goto(host)
        page.locator("#file").set_input_files(tmp_path / "broken.png")
        expect(page.locator("#composer-error")).to_contain_text("picture")
        page.locator("#file").set_input_files(tmp_path / "chair.png")
        expect(page.get_by_alt_text("Your picture")).to_be_visible()
        page.get_by_role("button", name="Make it").click()
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        assert lively.service.jobs.find()[0].client["image"] is True


def test_errors_cancel_and_search(page: Page, lively: World):
    with serving_world(lively, pause_s=600) as host:
        page.goto(host)
        page.get_by_role("button", name="Make it").click()
        expect(page.locator("#composer-error")).to_contain_text("Say what to make")
        ask(page, host, "a green crate")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".state")).to_have_text("Cancelled")
        ask(page, host, "a blue bottle")
        expect(page.locator(".state")).to_contain_text("Waiting")
        lively.worker.fail("The model was tired.")
        expect(page.get_by_role("alert").filter(has_text="tired")).to_be_visible()
        page.get_by_label("Search your assets").fill("green")
        expect(page.locator(".card")).to_have_count(1)


def test_it_comes_back_after_the_connection_was_lost(page: Page, lively: World):
    with serving_world(lively, pause_s=600) as host:
        ask(page, host, "a red barrel")
        expect(page.locator(".state")).to_contain_text("Waiting")
        page.context.set_offline(True)
        lively.app.state.hub.close()
        expect(page.locator("#link-state")).to_be_visible()
        lively.worker.work()
        page.context.set_offline(False)
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        expect(page.locator("#link-state")).to_be_hidden()


def test_signing_in(page: Page, make_world: MakeWorld):
    world = make_world(keys="required")
    with serving_world(world) as host:
        page.goto(host)
        page.get_by_label("Key").fill("mq_wrong")
        page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
        expect(page.locator("#sign-in-error")).to_contain_text("wrong")
        page.get_by_label("Key").fill(world.key("ann"))
        page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.wait_for_load_state()
        ask(page, host, "a red barrel")
        expect(page.locator(".state")).to_be_visible()
        assert world.service.jobs.find()[0].owner == "ann"


def test_on_a_phone(browser: Browser, lively: World):
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    with serving_world(lively) as host:
        ask(page, host, "a red barrel")
        expect(page.locator(".state")).to_have_text("Ready", timeout=WAIT_MS)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
