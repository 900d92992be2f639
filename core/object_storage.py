"""Pictures in an S3-compatible bucket: the same keys as in the folder, the same promises."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import ImageNotFound, Misconfigured, PicturesUnavailable
from core.settings import Settings
from core.storage import KEY

TIMEOUT_S = 10
TRIES = 4
MISSING = {"NoSuchKey", "404", "NotFound"}
REFUSALS = {401, 403, 404}
"""Statuses of a key that is not known or may not, and of a bucket that is not there."""
GENERATIONS = "generations/"


def open_bucket(settings: Settings) -> "BucketStorage":
    """Raises Misconfigured: the extra `s3` is not installed."""
    return BucketStorage(s3_client(settings), settings.s3_bucket)


def s3_client(settings: Settings) -> Any:
    """Connects to nothing yet.

    Raises:
        Misconfigured: the extra `s3` is not installed.
    """
    try:
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as error:
        raise Misconfigured("TRCE_S3_BUCKET is set: `pip install 'trce-service[s3]'`") from error
    secret = settings.s3_secret_access_key.get_secret_value()
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url or None,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id or None,
        aws_secret_access_key=secret or None,
        config=Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": TRIES, "mode": "standard"},
            # Stores other than AWS have no name for each bucket.
            s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            max_pool_connections=32,
        ),
    )


class BucketStorage:
    """Every verb raises PicturesUnavailable when the store does not answer or refuses."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._s3 = client
        self._bucket = bucket
        self.where = f"the bucket {bucket}"

    def make(self) -> bool:
        """Create the bucket where there is none; whether it was."""
        try:
            with self._answering():
                self._s3.head_bucket(Bucket=self._bucket)
        except ImageNotFound:
            region = self._s3.meta.region_name
            where = {} if region == "us-east-1" else {"LocationConstraint": region}
            options = {"CreateBucketConfiguration": where} if where else {}
            with self._answering():
                self._s3.create_bucket(Bucket=self._bucket, **options)
            return True
        return False

    def put(self, key: str, data: bytes) -> None:
        """Whole or not at all, as S3 promises of every object."""
        assert KEY.match(key), key
        try:
            with self._answering():
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)
        except ImageNotFound as error:
            # What a proxy says that stands before no store, or before another one.
            raise PicturesUnavailable(f"{self.where} is not there: 404", refused=True) from error

    def get(self, key: str) -> bytes:
        """Raises ImageNotFound."""
        assert KEY.match(key), key
        with self._answering():
            data: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return data

    def delete_below(self, prefix: str) -> None:
        """Remove every key that starts with `prefix/`."""
        for page in self._pages(f"{prefix}/"):
            for entry in page.get("Contents", []):
                with self._answering():
                    self._s3.delete_object(Bucket=self._bucket, Key=entry["Key"])

    def older_than(self, age_s: float, *, now: float) -> Iterator[str]:
        """First-level names below `generations/` untouched for `age_s` seconds.

        Walks over every object: the sweeper asks once in ten minutes. A bucket's own lifecycle
        rule does the same for nothing (docs/operations.md).
        """
        entries = (
            (
                entry["Key"].removeprefix(GENERATIONS).split("/")[0],
                entry["LastModified"].timestamp(),
            )
            for page in self._pages(GENERATIONS)
            for entry in page.get("Contents", [])
        )
        # They come in the order of their keys.
        for name, of_one in itertools.groupby(entries, key=lambda entry: entry[0]):
            if now - max(at for _, at in of_one) > age_s:
                yield name

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        with self._answering():
            pages = self._s3.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._bucket, Prefix=prefix)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code in MISSING:
                raise ImageNotFound("no such picture; it may have expired") from error
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            raise PicturesUnavailable(
                f"{self.where} refuses: {code}", refused=status in REFUSALS
            ) from error
        except BotoCoreError as error:
            # Not its message: that may quote an address or a key's name.
            raise PicturesUnavailable(
                f"{self.where} does not answer ({type(error).__name__})"
            ) from error
