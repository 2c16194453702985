"""The place that is a prefix of an S3 bucket.

Settings come from the environment, as everywhere: the AWS_* variables and files that boto3 reads, or Flyte's
FLYTE_AWS_ENDPOINT, FLYTE_AWS_ACCESS_KEY_ID and FLYTE_AWS_SECRET_ACCESS_KEY, which come first where they are set.
`HAND1000_S3_ENCRYPTION` (AES256, aws:kms or aws:kms,KEY_ID) has the server encrypt what is written.
"""

import contextlib
import os
import random
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.storage.backend import DamagedError
from hand1000.storage.digests import FileEntry, Manifest, digest_bytes
from hand1000.storage.scratch import process_scratch

READS = 8
"""How often a body that breaks off is asked for."""

_ENCRYPTIONS = ("AES256", "aws:kms")
_MISSING_KEY = {"NoSuchKey", "404", "NotFound"}
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket; create it or correct the name",
    "InvalidBucketName": "not a bucket's name; correct it",
    "InvalidAccessKeyId": "the access key id is unknown; correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not fit the access key id; correct AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "access denied; the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket here",
    "ExpiredToken": "the session's token has expired; sign in again",
    "InvalidToken": "the session's token is not valid; correct AWS_SESSION_TOKEN or remove it",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's; set it",
    "PermanentRedirect": "the bucket lies in another region; set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_REGION to it",
    "IllegalLocationConstraintException": "the bucket lies in another region; set AWS_REGION to it",
    "InvalidObjectState": "the object is archived; restore it to a readable storage class",
    "QuotaExceeded": "the bucket's quota is used up; free some or choose another bucket",
}
# Answers without a body, as to HEAD, and servers with names of their own.
_ALIASES = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "301": "PermanentRedirect",
    "XMinioStorageFull": "QuotaExceeded",
}


def s3_client() -> Any:
    """A boto3 client for S3 with the environment's settings; it is safe to share between threads.

    Raises:
        Hand1000Error: the endpoint in the environment is not a URL.
    """
    import boto3
    from botocore.config import Config

    env = os.environ.get
    endpoint = env("FLYTE_AWS_ENDPOINT") or env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
    key, secret = env("FLYTE_AWS_ACCESS_KEY_ID"), env("FLYTE_AWS_SECRET_ACCESS_KEY")
    session = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret) if key and secret else boto3.Session()
    # "standard" waits between attempts with jitter; a server that restarts is waited for, about half a minute.
    attempts = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"total_max_attempts": 8}
    settings: dict[str, Any] = {
        "retries": {"mode": "standard", **attempts},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 16,
    }
    if endpoint:
        # Servers other than Amazon's need not resolve bucket.host, nor know the newer checksum headers.
        settings |= {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    try:
        region = session.region_name or ("us-east-1" if endpoint else None)
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=Config(**settings))
    except ValueError as error:
        raise Hand1000Error(f"the S3 endpoint {endpoint!r} is not a URL; write it as http://host:port") from error


def _upload_args(sha256: str) -> dict[str, Any]:
    """What every upload says besides its bytes: their digest, and how the server is to encrypt them.

    Raises:
        Hand1000Error: `HAND1000_S3_ENCRYPTION` names no way of encryption.
    """
    extra: dict[str, Any] = {"Metadata": {"sha256": sha256}}
    asked = os.environ.get("HAND1000_S3_ENCRYPTION", "")
    kind, _, key = asked.partition(",")
    if asked and (kind not in _ENCRYPTIONS or (key and kind != "aws:kms")):
        raise Hand1000Error(f"HAND1000_S3_ENCRYPTION: {asked!r}; choose AES256, aws:kms or aws:kms,KEY_ID")
    if asked:
        extra["ServerSideEncryption"] = kind
    if key:
        extra["SSEKMSKeyId"] = key
    return extra


@contextlib.contextmanager
def translate_s3_errors(address: str) -> Iterator[None]:
    """Turn botocore's errors about `address` into a `Hand1000Error` that names it and the remedy."""
    from botocore import exceptions as botocore_errors
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except botocore_errors.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        remedy = _REMEDIES.get(_ALIASES.get(code, code))
        if remedy is None:
            message = error.response.get("Error", {}).get("Message", "")
            refused = f"the server refused with {code} {message}".rstrip()
            raise TransientError(f"{address}: {refused}; try again later") from error
        raise Hand1000Error(f"{address}: {remedy}") from error
    except (
        botocore_errors.NoCredentialsError,
        botocore_errors.PartialCredentialsError,
        botocore_errors.CredentialRetrievalError,
        botocore_errors.TokenRetrievalError,
        botocore_errors.UnauthorizedSSOTokenError,
    ) as error:
        raise Hand1000Error(
            f"{address}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or sign in"
        ) from error
    except (
        botocore_errors.ConnectionError,
        botocore_errors.HTTPClientError,
        botocore_errors.IncompleteReadError,
        RetriesExceededError,
    ) as error:
        # Connections refused, dropped or timed out, unknown hosts, proxies and certificates.
        raise TransientError(
            f"{address}: the S3 endpoint cannot be reached ({error}); check AWS_ENDPOINT_URL_S3 and the network"
        ) from error
    except botocore_errors.BotoCoreError as error:
        raise Hand1000Error(f"{address}: {one_line(error)}") from error


class S3Backend:
    """A prefix of a bucket. Each object carries the sha256 of its bytes in its metadata."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")
        self._scratch: Path | None = None

    @cached_property
    def _client(self) -> Any:
        return s3_client()

    @contextlib.contextmanager
    def _transfers(self) -> Iterator[Any]:
        """A manager that moves several files, and several parts of a large one, at the same time."""
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        megabyte = 1024 * 1024
        config = TransferConfig(
            multipart_threshold=16 * megabyte,
            multipart_chunksize=16 * megabyte,
            max_concurrency=8,
            num_download_attempts=READS,
            preferred_transfer_client="classic",
        )
        with create_transfer_manager(self._client, config) as manager:
            yield manager

    def _object(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _address(self, key: str) -> str:
        return f"{self.root}/{key}"

    def scratch(self) -> Path:
        """A temporary folder of this machine."""
        if self._scratch is None:
            self._scratch = process_scratch(None)
        return self._scratch

    def read(self, key: str) -> bytes | None:
        """The bytes of an object, held against the sha256 in its metadata, or None."""
        from botocore.exceptions import ClientError

        with translate_s3_errors(self._address(key)):
            try:
                answer, data = self._got(key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _MISSING_KEY:
                    return None
                raise
        if answer["Metadata"].get("sha256", digest_bytes(data)) != digest_bytes(data):
            raise DamagedError(f"{self._address(key)}: its bytes are not those that were written")
        return data

    def _got(self, key: str) -> tuple[dict[str, Any], bytes]:
        """The answer to a GET and its body; where that breaks off, asked for again, which boto3 does not do."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        for attempt in range(READS):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._object(key))
            try:
                return answer, answer["Body"].read()
            except (HTTPClientError, IncompleteReadError):
                if attempt == READS - 1:
                    raise
                time.sleep(random.uniform(0, min(2.0**attempt / 4, 4.0)))
        raise AssertionError

    def write(self, key: str, data: bytes) -> None:
        """Put an object."""
        with translate_s3_errors(self._address(key)):
            self._client.put_object(
                Bucket=self._bucket, Key=self._object(key), Body=data, **_upload_args(digest_bytes(data))
            )

    def remove(self, key: str) -> None:
        """Delete the object and all those below it."""
        target = self._object(key)
        names = [name for name in self._listed(target) if name == target or name.startswith(f"{target}/")]
        for start in range(0, len(names), 1000):  # As many as one request may name.
            doomed = [{"Key": name} for name in names[start : start + 1000]]
            with translate_s3_errors(self._address(key)):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": doomed, "Quiet": True})
            for refusal in answer.get("Errors", []):
                raise Hand1000Error(
                    f"s3://{self._bucket}/{refusal.get('Key')}: not deleted: {refusal.get('Code')}; "
                    f"the key needs s3:DeleteObject here"
                )

    def sizes(self, key: str) -> dict[str, int]:
        """The bytes of each object below a key, from one listing."""
        prefix = self._object(key) + "/"
        return {name.removeprefix(prefix): size for name, size in self._listed(prefix).items()}

    def _listed(self, prefix: str) -> dict[str, int]:
        with translate_s3_errors(f"s3://{self._bucket}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """Upload the files in parallel."""

        def start(manager: Any, entry: FileEntry) -> Any:
            name = self._object(f"{key}/{entry.name}")
            extra = _upload_args(entry.sha256)
            return manager.upload(str(directory / entry.name), self._bucket, name, extra_args=extra)

        with translate_s3_errors(self._address(key)), self._transfers() as manager:
            for future in [start(manager, entry) for entry in manifest.files]:
                future.result()

    def get_tree(self, key: str, manifest: Manifest, into: Path) -> None:
        """Download the files in parallel; each gets its name when it is whole."""
        from botocore.exceptions import ClientError

        def start(manager: Any, entry: FileEntry) -> Any:
            path = into / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            return manager.download(self._bucket, self._object(f"{key}/{entry.name}"), str(path))

        with translate_s3_errors(self._address(key)), translate_write_errors(into), self._transfers() as manager:
            into.mkdir(parents=True, exist_ok=True)
            for entry, future in [(entry, start(manager, entry)) for entry in manifest.files]:
                try:
                    future.result()
                except ClientError as error:
                    if error.response.get("Error", {}).get("Code") in _MISSING_KEY:
                        raise DamagedError(f"{self._address(key)}/{entry.name}: missing") from error
                    raise

    def folder(self, key: str) -> Path | None:
        """None: a bucket is not a folder."""
        return None
