"""The web page in headless Chromium: from request to viewed asset, variants, errors, cancel, reconnect.

Needs Chromium: `apt-get install chromium-headless-shell`, or `playwright install chromium`; and the viewer
(`scripts/web-vendor.sh`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trimesh
from playwright.sync_api import Browser, Page, expect, sync_playwright

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


@pytest.fixture
def lively(world: World) -> World:
    world.worker.glb = trimesh.creation.box().export(file_type="glb")
    return world


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
