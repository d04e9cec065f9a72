"""Artefacts in S3, or in anything that speaks its API: `s3://bucket/prefix`.

An object is written with `If-None-Match: *`, so never twice, and with its sha256, which the store checks
before it answers; a hash that is there is whole. Keys and region are taken from where boto3 finds them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from render.errors import InputError
from worker.store import CHUNK, PART, DamagedError, Stored

TIMEOUT_S = 30
TRIES = 5


class ObjectStore:
    """A `worker.store.Store`. Cheap to share between threads."""

    def __init__(self, url: str, endpoint: str = "") -> None:
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise InputError("MAQUETTE_STORE_URL names S3: pip install 'maquette[s3]'.") from None
        parts = urlsplit(url)
        if not parts.netloc:
            raise InputError(f"MAQUETTE_STORE_URL must be s3://bucket or s3://bucket/prefix, not {url!r}.")
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/") + "sha256/"
        config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"max_attempts": TRIES, "mode": "standard"},
            s3={"addressing_style": "path"} if endpoint else {},
        )
        self._client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=config)

    @property
    def folder(self) -> Path | None:
        return None

    def _key(self, sha256: str) -> str:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise FileNotFoundError(sha256)
        return f"{self._prefix}{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def put(self, path: Path, sha256: str | None = None) -> str:
        with path.open("rb") as file:
            sha256 = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
            if self.has(sha256):
                return sha256
            file.seek(0)
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key(sha256),
                    Body=file,
                    IfNoneMatch="*",
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                )
            except self._client.exceptions.ClientError as error:
                # Another was quicker, or is writing the same just now: S3 asks to look again.
                if _status(error) not in (409, 412):
                    raise
                if not self.has(sha256):
                    raise
        return sha256

    def has(self, sha256: str) -> bool:
        try:
            self.size(sha256)
        except FileNotFoundError:
            return False
        return True

    def size(self, sha256: str) -> int:
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._key(sha256))
        except self._client.exceptions.ClientError as error:
            raise _missing(error, sha256) from None
        return int(found["ContentLength"])

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> BinaryIO:
        if end is not None and end <= start:
            raise ValueError(f"an empty range: {start} to {end}")
        asked = f"bytes={start}-{'' if end is None else end - 1}"
        given = {} if start == 0 and end is None else {"Range": asked}
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(sha256), **given)
        except self._client.exceptions.ClientError as error:
            raise _missing(error, sha256) from None
        return cast(BinaryIO, found["Body"])

    def fetch(self, sha256: str, to: Path) -> None:
        part = to.with_name(f".{to.name}{PART}")
        read = hashlib.sha256()
        try:
            with self.open(sha256) as source, part.open("wb") as target:
                while chunk := source.read(CHUNK):
                    read.update(chunk)
                    target.write(chunk)
            if read.hexdigest() != sha256:
                raise DamagedError(sha256)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._key(sha256))

    def walk(self) -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            for found in page.get("Contents", ()):
                name = found["Key"].rpartition("/")[2]
                yield Stored(name, int(found["Size"]), found["LastModified"].timestamp())

    def sweep_parts(self, older_than_s: float) -> int:
        return 0  # an object appears whole or not at all


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _missing(error: Any, sha256: str) -> Exception:
    return FileNotFoundError(sha256) if _status(error) == 404 else error
