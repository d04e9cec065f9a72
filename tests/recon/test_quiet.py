"""Only the chatter is left out, also when the block fails."""

from __future__ import annotations

import os

import pytest

from recon.quiet import without_lines


def test_chatter_goes_and_the_rest_stays(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(b"bad average roots"):
        os.write(2, b"bad average roots: 0.1\nsomething else\nbad average roots: 0.2\n")
    assert capfd.readouterr().err == "something else\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_an_error_inside_is_not_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))

    def fail() -> None:
        with without_lines(b"bad"):
            os.write(2, b"why it failed\nbad\n")
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert capfd.readouterr().err == "why it failed\n"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_message_goes_with_its_heading(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(b"bad average roots"):
        os.write(
            2, b"[WARNING] IsoSurface.inl (Line 1858)\n          Extract\n          bad average roots: 0.1\n"
        )
        os.write(2, b"[WARNING] IsoSurface.inl (Line 7)\n          Extract\n          out of cells\n")
    assert (
        capfd.readouterr().err
        == "[WARNING] IsoSurface.inl (Line 7)\n          Extract\n          out of cells\n"
    )
