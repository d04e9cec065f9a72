"""Thickness where it is known."""

from __future__ import annotations

import pytest
import trimesh

from recon.thickness import thickness
from tests.recon.mesh_field import as_mesh


def test_a_plate_is_as_thick_as_it_is() -> None:
    found = thickness(as_mesh(trimesh.creation.box((2.0, 0.01, 1.0))))
    assert found.median == pytest.approx(0.01, rel=1e-2)
    assert found.thinnest == pytest.approx(0.01, rel=1e-2)
    assert found.thin_share > 0.95


def test_a_ball_has_nothing_thin() -> None:
    found = thickness(as_mesh(trimesh.creation.icosphere(4, 0.5)))
    assert found.median == pytest.approx(1.0, rel=0.01)
    assert found.thin_share == 0.0


def test_a_single_sheet_has_no_inside() -> None:
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    assert thickness(as_mesh(sheet)).median is None
