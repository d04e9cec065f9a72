"""Content credentials: signed files verify, one changed byte shows, in files that carry them and others."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import cli
from pipeline.credentials import SIDECAR, identity_folder, sign, verify
from render.errors import InputError

CLAIMS = {"prompt": "a barrel", "seed": 3}


@pytest.fixture(autouse=True)
def own_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MAQUETTE_C2PA_CERTIFICATE", raising=False)
    monkeypatch.delenv("MAQUETTE_C2PA_KEY", raising=False)


def some_file(folder: Path, ending: str) -> Path:
    path = folder / f"asset{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a" * 1000)
    elif ending in (".png", ".webp", ".gif"):
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    else:
        path.write_bytes(b"glTF" + bytes(range(256)) * 8)
    return path


@pytest.mark.parametrize("ending", [".png", ".webp", ".gif", ".zip", ".glb", ".obj"])
def test_signed_files_verify_and_a_changed_byte_shows(tmp_path: Path, ending: str):
    path = some_file(tmp_path, ending)
    original = path.read_bytes()
    assert verify(path).state == "none"
    holder = sign(path, CLAIMS, "1.0")
    found = verify(path)
    assert found.state == "trusted"
    assert found.claims == CLAIMS
    if ending in (".glb", ".obj"):
        assert holder.name == f"asset{ending}{SIDECAR}"
        assert path.read_bytes() == original
    else:
        assert holder == path
    data = bytearray(path.read_bytes())
    # Inside what was there before signing: pixels, entries of the archive.
    at = data.find(original[len(original) // 2 :][:16]) if holder == path else len(data) // 2
    data[at + 3] ^= 1
    path.write_bytes(bytes(data))
    assert verify(path).state == "changed"


def test_another_installation_sees_an_unknown_signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = some_file(tmp_path, ".glb")
    sign(path, CLAIMS, "1.0")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert verify(path).state == "valid"


def test_a_sidecar_of_another_file_does_not_fit(tmp_path: Path):
    first, second = some_file(tmp_path, ".glb"), some_file(tmp_path, ".obj")
    sign(first, CLAIMS, "1.0")
    second.write_bytes(b"other")
    shutil.copy(first.with_name(first.name + SIDECAR), second.with_name(second.name + SIDECAR))
    assert verify(second).state == "changed"


def test_the_key_is_the_owners_alone(tmp_path: Path):
    sign(some_file(tmp_path, ".glb"), CLAIMS, "1.0")
    key = identity_folder() / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    sign(some_file(tmp_path, ".png"), CLAIMS, "1.0")
    assert key.read_bytes() == before


def test_bad_certificates_and_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"nothing\.glb"):
        verify(tmp_path / "nothing.glb")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        sign(broken, CLAIMS, "1.0")
    assert broken.read_bytes() == b"no picture"
    monkeypatch.setenv("MAQUETTE_C2PA_CERTIFICATE", str(broken))
    with pytest.raises(InputError, match="both"):
        sign(some_file(tmp_path, ".glb"), CLAIMS, "1.0")
    monkeypatch.setenv("MAQUETTE_C2PA_KEY", str(broken))
    with pytest.raises(InputError, match=r"asset\.glb"):
        sign(some_file(tmp_path, ".glb"), CLAIMS, "1.0")


def test_the_command_tells_and_fails_on_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = some_file(tmp_path, ".glb")
    sign(path, CLAIMS, "1.0")
    assert cli.invoke(["verify", str(path)]) == 0
    assert "prompt a barrel" in capsys.readouterr().out
    path.write_bytes(path.read_bytes() + b"!")
    assert cli.invoke(["verify", str(path)]) == 1
    assert "CHANGED" in capsys.readouterr().out
