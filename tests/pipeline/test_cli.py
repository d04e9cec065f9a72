"""The command line: one clear line and the right exit code for every mistake."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import cli
from pipeline.preset import PackageConfig, load_preset
from render.errors import InputError

BAD: list[tuple[list[str], str]] = [
    (["generate", "a barrel"], "Missing option '--out'"),
    (["generate", "", "--out", "OUT"], "prompt is empty"),
    (["generate", "x" * 10_000, "--out", "OUT"], "10,000 characters"),
    (["generate", "a barrel", "--out", "OUT", "--preset", "best"], "Unknown preset 'best'"),
    (["generate", "a barrel", "--out", "OUT", "--preset", "bad.yaml"], "Unknown setting views.stepz"),
    (["generate", "a barrel", "--out", "file"], "is a file"),
    (["generate", "a barrel", "--out", "file/below"], "cannot be written"),
    (["generate", "a barrel", "--out", "OUT", "--seed", "abc"], "--seed"),
    (["generate", "a barrel", "--out", "OUT", "--formats", "dae"], "'dae' is unknown"),
    (["generate", "a barrel", "--out", "OUT", "--device", "tpu"], "--device must be auto, cpu or cuda"),
    (["generate", "a barrel", "--out", "OUT", "--height-m", "-1"], "height_m must be between"),
    (["generate", "a barrel", "--out", "OUT", "--nonsense"], "--nonsense"),
    (["generate", "a barrel", "--out", "OUT", "--lods", "9"], "package.lods must be between 1 and 8, not 9"),
    (["generate", "a barrel", "--out", "OUT", "--pivot", "up"], "package.pivot must be one of floor"),
    (
        ["reconstruct", "set", "--out", "OUT", "--compress", "zip"],
        "package.meshes must be one of plain, draco",
    ),
    (["generate", "--image", "none.png", "--out", "OUT"], "There is no image none.png"),
    (["generate", "--image", "file", "--out", "OUT"], "is not a PNG, JPEG or WebP"),
    (["generate", "--image", "clear.png", "--out", "OUT"], "fully transparent"),
    (["generate", "a barrel", "--back", "clear.png", "--out", "OUT"], "--back goes with one --image"),
    (
        ["generate", "--image", "clear.png", "--image", "clear.png", "--left", "clear.png", "--out", "OUT"],
        "which shows the front; there are 2",
    ),
    (["generate", "--resume", "--out", "OUT"], "nothing to resume"),
    (["replay", "none.json", "--out", "OUT"], "There is no receipt none.json"),
    (["replay", "file", "--out", "OUT"], "is not a receipt"),
    (["nonsense"], "nonsense"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("{}")
    Path("bad.yaml").write_text("views:\n  stepz: 3\n")
    Image.new("RGBA", (64, 64)).save("clear.png")
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a)[:50] for a, _ in BAD])
def test_mistakes(folder: Path, capsys: Any, arguments: list[str], message: str):
    assert cli.invoke(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    out = folder / "OUT"
    assert not out.exists() or [path.name for path in out.iterdir() if not path.name.startswith(".")] == []


def test_cuda_without_a_device(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.invoke(["generate", "a barrel", "--out", "OUT", "--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.run.generate", interrupted)
    assert cli.invoke(["generate", "a barrel", "--out", "OUT"]) == 130
    assert "maquette generate --resume --out OUT" in capsys.readouterr().err


def test_options_reach_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, Any] = {}

    def record(prompt: str, **options: Any) -> None:
        seen.update(options, prompt=prompt)
        raise InputError("enough")

    monkeypatch.setattr("pipeline.run.generate", record)
    words = "generate chair --out OUT --negative red --preset draft --seed 9 --variants 4 --polycount 500"
    words += " --height-m 0.9 --texture-size 256 --formats GLB,obj --device cpu --quiet"
    assert cli.invoke(words.split()) == 2
    seen.pop("observer")
    assert seen.pop("screening").name.startswith("offline")
    assert seen == {
        "prompt": "chair",
        "out": Path("OUT"),
        "negative": "red",
        "preset": "draft",
        "seed": 9,
        "variants": 4,
        "polycount": 500,
        "height_m": 0.9,
        "texture_size": 256,
        "formats": ("glb", "obj"),
        "device": "cpu",
    }


def test_what_an_engine_wants_changes_the_preset_of_both(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []

    def record(*given: Any, **options: Any) -> None:
        seen.append(options["preset"])
        raise InputError("enough")

    monkeypatch.setattr("pipeline.run.generate", record)
    monkeypatch.setattr("pipeline.reconstruct.reconstruct", record)
    words = "--out OUT --preset draft --lods 3 --collider --pivot center --lod-layout msft --textures webp"
    for command in ("generate chair", "reconstruct set"):
        assert cli.invoke([*command.split(), *words.split(), "--compress", "draco", "--quiet"]) == 2
    generated, reconstructed = seen
    assert generated == reconstructed
    assert generated == replace(
        load_preset("draft"),
        package=PackageConfig(
            lods=3, collider=True, pivot="center", lod_layout="msft", textures="webp", meshes="draco"
        ),
    )


def test_help_names_every_command(capsys: Any):
    assert cli.invoke(["--help"]) == 0
    said = capsys.readouterr().out
    for name in ("generate", "render", "inspect", "replay", "train", "models"):
        assert name in said


def test_no_command_shows_the_help(capsys: Any):
    assert cli.invoke([]) == 2
    assert "generate" in capsys.readouterr().err


def test_the_process_exits_with_the_code(tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "generate", "--out", str(tmp_path / "OUT")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parent.parent,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("The prompt is empty.")
    assert not (tmp_path / "OUT").exists()
