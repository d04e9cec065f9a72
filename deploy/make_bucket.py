"""Makes the bucket of `MAQUETTE_STORE_URL` where it is missing; keys and region as boto3 finds them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from worker.settings import Settings, load_settings


def make_bucket(settings: Settings) -> bool:
    """Whether it had to be made."""
    import boto3

    bucket = urlsplit(settings.store).netloc
    client: Any = boto3.client("s3", endpoint_url=settings.s3_endpoint or None)
    if bucket in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        return False
    client.create_bucket(Bucket=bucket)
    return True


if __name__ == "__main__":
    make_bucket(load_settings())
