from __future__ import annotations

from pathlib import Path

import pytest

from render.errors import InputError
from worker.commands import keys


def test_a_key_is_made_shown_once_listed_and_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MAQUETTE_DATA", str(tmp_path))
    keys.create("ann", scopes="read,write", name="laptop")
    plain = capsys.readouterr().out.strip()
    key_id, secret = plain.removeprefix("mq_").split(".")
    keys.list_keys()
    listed = capsys.readouterr().out
    assert key_id in listed
    assert "active" in listed
    assert secret not in listed
    assert secret.encode() not in (tmp_path / "maquette.db").read_bytes()
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    keys.revoke(plain)
    keys.list_keys()
    assert "revoked" in capsys.readouterr().out
    with pytest.raises(InputError, match="no active key"):
        keys.revoke(key_id)


@pytest.mark.parametrize(("owner", "scopes"), [("", "read"), ("a b", "read"), ("ann", "root"), ("ann", "")])
def test_wrong_owners_and_scopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, scopes: str):
    monkeypatch.setenv("MAQUETTE_DATA", str(tmp_path))
    with pytest.raises(InputError):
        keys.create(owner, scopes=scopes)
