"""Files of models in an S3-compatible bucket, each under its SHA-256: files/<digest>."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.byte_counting import listener
from core.errors import ModelsUnavailable
from core.files import CHUNK_BYTES

MISSING = {"NoSuchKey", "404", "NotFound"}


class BucketFiles:
    """All verbs raise ModelsUnavailable when the bucket does not answer or refuses."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._s3 = client
        self._bucket = bucket

    def size(self, digest: str) -> int | None:
        """In bytes; None when the bucket has no such file."""
        return self.size_of(f"files/{digest}")

    def size_of(self, key: str) -> int | None:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        with self.answering():
            try:
                found = self._s3.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in MISSING:
                    return None
                raise
        return int(found["ContentLength"])

    def put(self, path: Path, digest: str, *, again: bool = False) -> None:
        """Unless one of that size is there.

        Args:
            again: whatever is there.
        """
        heard, size = listener(), path.stat().st_size
        if not again and self.size(digest) == size:
            heard(size)
            return
        with self.answering():
            key = f"files/{digest}"
            self._s3.upload_file(str(path), self._bucket, key, Callback=heard)

    def fetch(self, digest: str, target: Path) -> str:
        """Into a new file; the SHA-256 of what came is returned.

        Raises:
            OSError: it cannot be written.
        """
        found, heard = hashlib.sha256(), listener()
        with target.open("xb") as file:
            with self.answering():
                body = self._s3.get_object(Bucket=self._bucket, Key=f"files/{digest}")["Body"]
                while chunk := body.read(CHUNK_BYTES):
                    file.write(chunk)
                    found.update(chunk)
                    heard(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        return found.hexdigest()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Errors of the client inside become ModelsUnavailable."""
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        where = f"the bucket {self._bucket}"
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ModelsUnavailable(f"{where} refuses a model: {code}") from error
        except (BotoCoreError, Boto3Error) as error:
            # Not its message: that may quote an address or a key's name.
            raise ModelsUnavailable(f"{where} does not answer ({type(error).__name__})") from error
