from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from render.errors import InputError
from worker.manifest import read_manifest


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_and_csv_say_the_same(tmp_path: Path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "chair.png")
    rows = [
        {"id": "crate", "prompt": "a  wooden crate", "seed": 3, "formats": ["glb", "obj"], "height_m": 2},
        {"id": "chair", "image": "chair.png", "preset": "draft", "variants": 2, "polycount": 900},
    ]
    jsonl = write(tmp_path, "a.jsonl", "# a comment\n\n" + "\n".join(map(json.dumps, rows)))
    csv = write(
        tmp_path,
        "a.csv",
        "id,prompt,image,seed,formats,height_m,preset,variants,polycount\r\n"
        'crate,a wooden crate,,3,"glb,obj",2,,,\r\n'
        "\r\n"
        "chair,,chair.png,,,,draft,2,900\r\n",
    )
    first, second = read_manifest(jsonl), read_manifest(csv)
    assert [(row.row, row.key) for row in first] == [(row.row, row.key) for row in second]
    assert first[0].row.prompt == "a wooden crate"
    assert first[1].image == (tmp_path / "chair.png").resolve()
    assert [row.line for row in first] == [3, 4]


def test_equal_assets_have_equal_keys(tmp_path: Path):
    for name, color in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / name)
    lines = [
        {"id": "one", "prompt": "a crate"},
        {"id": "two", "prompt": " a   crate "},
        {"id": "three", "prompt": "a crate", "seed": 1},
        {"id": "four", "image": "a.png"},
        {"id": "five", "image": "b.png"},
        {"id": "six", "image": "c.png"},
    ]
    rows = read_manifest(write(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines))))
    keys = [row.key for row in rows]
    assert keys[0] == keys[1]
    assert keys[3] == keys[4]
    assert len(set(keys)) == 4


def test_rows_without_an_id_are_named(tmp_path: Path):
    path = write(tmp_path, "m.csv", "prompt\na red mushroom\na red mushroom\n")
    assert [row.row.id for row in read_manifest(path)] == ["00002-a-red-mushroom", "00003-a-red-mushroom"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is not JSON"),
        ("[1]", "line 2: this is no object"),
        ("{}", "prompt is empty"),
        ('{"prompt": "a", "poly": 3}', "Unknown setting poly. Did you mean polycount"),
        ('{"prompt": "a", "seed": "x"}', "seed must be a number"),
        ('{"prompt": "a", "seed": -1}', "seed must be between"),
        ('{"prompt": "a", "polycount": 3}', "polycount must be between"),
        ('{"prompt": "a", "height_m": 1e400}', "finite"),
        ('{"prompt": "a", "formats": "glb,exe"}', "exe"),
        ('{"prompt": "a", "preset": "best"}', "preset must be one of draft"),
        ('{"prompt": "a", "id": "../etc"}', "id must be a short file name"),
        ('{"prompt": "a", "id": "OK"}', "id 'OK' is that of line 1"),
        ('{"image": "no.png"}', "there is no image"),
        ('{"prompt": "' + "a" * 700 + '"}', "700 characters"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, line: str, message: str):
    path = write(tmp_path, "m.jsonl", '{"id": "ok", "prompt": "a crate"}\n' + line)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(path)
    assert "line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_manifest(tmp_path: Path):
    for name, text, message in (
        ("m.txt", "a", "is .jsonl or .csv"),
        ("m.jsonl", "", "no rows"),
        ("m.csv", 'prompt\n"a', "not CSV"),
        ("n.csv", "prompt\na,b\n", "more cells"),
    ):
        with pytest.raises(InputError, match=message):
            read_manifest(write(tmp_path, name, text))
    with pytest.raises(InputError, match="There is no manifest"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(tmp_path / "b.csv")


def test_many_mistakes_are_counted(tmp_path: Path):
    path = write(tmp_path, "m.jsonl", "{}\n" * 25)
    with pytest.raises(InputError, match="and 15 more"):
        read_manifest(path)
