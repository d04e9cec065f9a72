from __future__ import annotations

import pytest

from render.errors import InputError
from worker.keys import Quota, checked_scopes, mac_of, matches, mint, split

SECRET = b"s" * 32


def test_a_key_opens_with_its_secret_alone():
    key, other = mint(SECRET), mint(SECRET)
    parts = split(key.plain)
    assert parts is not None
    key_id, secret = parts
    assert key_id == key.key_id
    assert matches(secret, key_id, key.mac, SECRET)
    assert not matches(secret[:-1] + ("A" if secret[-1] != "A" else "B"), key_id, key.mac, SECRET)
    assert not matches(secret, other.key_id, key.mac, SECRET)  # bound to its id
    assert not matches(secret, key_id, key.mac, b"t" * 32)  # and to the service
    assert secret.encode() not in key.mac
    assert key.plain != other.plain


@pytest.mark.parametrize("text", ["", "mq_", "Bearer x", "mq_0123456789abcdef", "é" * 70, "a.b" * 40])
def test_what_is_no_key(text: str):
    assert split(text) is None


def test_the_hash_is_hmac_sha256():
    import hashlib
    import hmac

    wanted = hmac.new(SECRET, b"api-key\nab\nxyz", hashlib.sha256).digest()
    assert mac_of("xyz", "ab", SECRET) == wanted


def test_scopes_and_quotas():
    assert checked_scopes(["write", "read"]) == ("read", "write")
    for wrong in ([], ["root"]):
        with pytest.raises(InputError, match="scope"):
            checked_scopes(wrong)
    with pytest.raises(InputError, match="jobs_per_day"):
        Quota(jobs_per_day=0)
