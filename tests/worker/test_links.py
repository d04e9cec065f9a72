from __future__ import annotations

import pytest

from worker.links import token, valid_token

SECRET = b"k" * 32


def test_a_link_is_for_one_thing_one_purpose_and_one_time():
    word = token("artefact", "abc/barrel.glb", 1000, SECRET)
    assert valid_token("artefact", "abc/barrel.glb", word, 1000.0, SECRET)
    assert not valid_token("artefact", "abc/barrel.glb", word, 1000.5, SECRET)
    assert not valid_token("artefact", "abc/other.glb", word, 0.0, SECRET)
    assert not valid_token("share", "abc/barrel.glb", word, 0.0, SECRET)
    assert not valid_token("artefact", "abc/barrel.glb", word, 0.0, b"x" * 32)
    assert not valid_token("artefact", "abc/barrel.glb", word.replace("1000.", "9000."), 0.0, SECRET)


@pytest.mark.parametrize("word", ["", ".", "1", "1.", "x.y", "٣.abc", "1.é", "9" * 40 + ".a"])
def test_malformed_words(word: str):
    assert not valid_token("share", "a", word, 0.0, SECRET)
