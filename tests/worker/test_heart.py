"""The heart of a running stage: it tells the first progress at once, and does not tire the database later."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from worker import queue
from worker.database import Database
from worker.heart import FIRST_WAIT_S, Heart
from worker.queue import Claim
from worker.settings import load_settings


class Beats:
    """What a heart tells the database, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[float] = []
        self.told: list[float] = []
        self.tells = threading.Event()
        monkeypatch.setattr(queue, "renew", self.renew)
        monkeypatch.setattr(queue, "is_canceled", self.is_canceled)

    def renew(self, *_: Any, progress: float, tell: bool, **__: Any) -> bool:
        if tell:
            self.told.append(progress)
            self.tells.set()
        return self.is_canceled()

    def is_canceled(self, *_: Any) -> bool:
        self.at.append(time.monotonic())
        return False


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Beats:
    return Beats(monkeypatch)


def heart_in(folder: Path) -> Heart:
    """A heart that beats once a minute, if it is not woken."""
    settings = load_settings(data=folder, tick_s=60)
    return Heart(cast(Database, None), cast(Claim, None), settings, threading.Event())


def test_the_first_news_are_told_at_once_and_the_beats_after_them_sooner(tmp_path: Path, beats: Beats):
    with heart_in(tmp_path) as heart:
        heart.progress(0.0)
        time.sleep(0.3)
        assert not beats.at  # nothing was said
        heart.progress(0.1, "loading the model")
        assert beats.tells.wait(20)
        time.sleep(1.0)
    waits = [after - before for before, after in itertools.pairwise(beats.at)]
    assert waits
    assert all(wait > 0.99 * FIRST_WAIT_S * 2**number for number, wait in enumerate(waits, 1))


def test_a_stage_that_is_over_at_once_tells_nothing(tmp_path: Path, beats: Beats):
    before = time.monotonic()
    for _ in range(20):
        with heart_in(tmp_path) as heart:
            heart.progress(1.0)
    assert time.monotonic() - before < 20  # none waited for a beat
    assert len(beats.told) < 20
