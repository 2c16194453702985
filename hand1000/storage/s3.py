"""Amazon S3 and servers that speak its protocol: client, errors, listing, and the storage backend.

Settings come from the environment: the AWS_* variables and files that boto3 reads, or Flyte's FLYTE_AWS_ENDPOINT,
FLYTE_AWS_ACCESS_KEY_ID and FLYTE_AWS_SECRET_ACCESS_KEY, which take precedence. With `HAND1000_S3_ENCRYPTION` (AES256,
aws:kms or aws:kms,KEY_ID) the server encrypts what is written.
"""

import contextlib
import functools
import os
import random
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.core.retry import call_with_retry
from hand1000.storage.digests import (
    OTHER_BYTES,
    DamagedError,
    FileEntry,
    Manifest,
    StoredFile,
    describe_damage,
    digest_bytes,
)
from hand1000.storage.files import write_bytes
from hand1000.storage.keys import safe_join
from hand1000.storage.scratch import process_scratch
from hand1000.storage.verification import find_damage

MAX_READS = 8
"""Number of requests for an object whose body breaks off."""

_PART_BYTES = 16 << 20
# Object in a tree that a reader found damaged.
_SUSPECT = ".suspect"
_ENCRYPTIONS = ("AES256", "aws:kms")
_ENCRYPTION_ATTEMPTS = 2
_MISSING_KEY = {"NoSuchKey", "404", "NotFound"}
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket; create it or correct the name",
    "InvalidBucketName": "not a valid bucket name; correct it",
    "InvalidAccessKeyId": "the access key id is unknown; correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not match the access key id; correct AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "access denied; the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket here",
    "ExpiredToken": "the session's token has expired; sign in again",
    "InvalidToken": "the session's token is not valid; correct AWS_SESSION_TOKEN or remove it",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's; correct it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION to it",
    "IllegalLocationConstraintException": "the bucket is in another region; set AWS_REGION to it",
    "InvalidObjectState": "the object is archived; restore it to a readable storage class",
    "QuotaExceeded": "the bucket's quota is used up; free some or choose another bucket",
}
# Codes of responses without a body, as to HEAD, and of other servers than Amazon's.
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


# Of status 4xx, and gone at another attempt.
_TRANSIENT_CODES = {
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}


class MissingKeyError(DamagedError):
    """There is no object with this key."""


def s3_client() -> Any:
    """Return a boto3 client for S3 with the environment's settings, which threads may share.

    Raises:
        Hand1000Error: The endpoint in the environment is not a URL.
    """
    import boto3
    from botocore.config import Config

    env = os.environ.get
    endpoint = env("FLYTE_AWS_ENDPOINT") or env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
    key, secret = env("FLYTE_AWS_ACCESS_KEY_ID"), env("FLYTE_AWS_SECRET_ACCESS_KEY")
    session = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret) if key and secret else boto3.Session()
    # "standard" waits between attempts, with jitter: eight attempts outlast a restart of about half a minute.
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
        client = session.client("s3", endpoint_url=endpoint, region_name=region, config=Config(**settings))
    except ValueError as error:
        raise Hand1000Error(f"the S3 endpoint {endpoint!r} is not a URL; write it as http://host:port") from error
    if endpoint:
        for operation in ("PutObject", "CreateMultipartUpload"):
            handler = functools.partial(_refuse_missing_key, client)
            client.meta.events.register_first(f"needs-retry.s3.{operation}", handler)
    return client


def _refuse_missing_key(client: Any, response: Any, attempts: int, request_dict: dict[str, Any], **_: object) -> None:
    """End the retries of an encrypted write that a server cannot make, because it has no key.

    SeaweedFS and others answer status 500 then, as they do to faults that pass. So this waits for the second such
    answer to a write, while the server answers another request.

    Raises:
        Hand1000Error: The server cannot encrypt.
    """
    kind = request_dict["headers"].get("x-amz-server-side-encryption")
    status = response[0].status_code if response is not None else None
    if not kind or status not in (500, 501) or attempts < _ENCRYPTION_ATTEMPTS:
        return
    try:
        client.head_bucket(Bucket=request_dict["context"]["input_params"]["Bucket"])
    except Exception:  # The server has another trouble, which the retries may outlast.
        return
    kind = kind.decode() if isinstance(kind, bytes) else kind
    raise Hand1000Error(
        f"HAND1000_S3_ENCRYPTION: the server answers {status} to a write with {kind}, so it seems to have no key for "
        "it; give the server a key, or unset the variable"
    )


def _upload_args(sha256: str) -> dict[str, Any]:
    """Return boto3's arguments of an upload: the digest as metadata, and how the server encrypts the object.

    Raises:
        Hand1000Error: `HAND1000_S3_ENCRYPTION` is malformed.
    """
    encryption = os.environ.get("HAND1000_S3_ENCRYPTION", "")
    kind, _, key = encryption.partition(",")
    if encryption and (kind not in _ENCRYPTIONS or (key and kind != "aws:kms")):
        raise Hand1000Error(f"HAND1000_S3_ENCRYPTION: {encryption!r}; choose AES256, aws:kms or aws:kms,KEY_ID")
    sse = {"ServerSideEncryption": kind} if encryption else {}
    return {"Metadata": {"sha256": sha256}, **sse, **({"SSEKMSKeyId": key} if key else {})}


@contextlib.contextmanager
def translate_s3_errors(address: str) -> Iterator[None]:
    """Turn botocore's errors into a `Hand1000Error` that names `address` and the remedy."""
    from botocore import exceptions as errors
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except errors.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _MISSING_KEY:
            raise MissingKeyError(f"{address}: missing") from error
        remedy = _REMEDIES.get(_ALIASES.get(code, code))
        if remedy is not None:
            raise Hand1000Error(f"{address}: {remedy}") from error
        message = " ".join(str(error.response.get("Error", {}).get("Message") or "").split())[:200]
        refusal = f"{address}: the server refused with {code} {message}".rstrip()
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status < 500 and status not in (408, 409, 429) and code not in _TRANSIENT_CODES:
            raise Hand1000Error(f"{refusal}; correct the request, or choose another bucket") from error
        encryption = os.environ.get("HAND1000_S3_ENCRYPTION", "")
        if encryption and error.operation_name in ("PutObject", "CreateMultipartUpload"):
            refusal += (
                f"; the server may have no key for HAND1000_S3_ENCRYPTION={encryption}: give it one, unset this, or"
            )
            raise TransientError(f"{refusal} try again later") from error
        raise TransientError(f"{refusal}; try again later") from error
    except (
        errors.NoCredentialsError,
        errors.PartialCredentialsError,
        errors.CredentialRetrievalError,
        errors.TokenRetrievalError,
        errors.UnauthorizedSSOTokenError,
    ) as error:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or sign in"
        raise Hand1000Error(f"{address}: no credentials; {remedy}") from error
    # Connections refused, dropped or timed out, unknown hosts, proxies and certificates.
    except (errors.ConnectionError, errors.HTTPClientError, errors.IncompleteReadError, RetriesExceededError) as error:
        remedy = "check AWS_ENDPOINT_URL_S3 and the network"
        raise TransientError(f"{address}: the S3 endpoint cannot be reached ({error}); {remedy}") from error
    except ResponseParserError as error:
        reason = f"the answer is not that of an S3 server ({one_line(error)[:200]})"
        raise TransientError(f"{address}: {reason}; check AWS_ENDPOINT_URL_S3") from error
    except errors.BotoCoreError as error:
        raise Hand1000Error(f"{address}: {one_line(error)}") from error


class S3Object(NamedTuple):
    """An object below an `S3Location`; a listing that is not recursive also has folders, whose names end in `/`."""

    name: str
    size: int = 0
    etag: str = ""
    modified: float = 0.0
    """Seconds since 1970 of the last write."""


class S3Location:
    """The objects below `s3://bucket/prefix`, by names relative to it.

    Raises:
        Hand1000Error: The URL names no bucket.
    """

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        self._bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        if not url.startswith("s3://") or not self._bucket:
            raise Hand1000Error(f"{url!r}: not an S3 URL; write it as s3://bucket/prefix")

    @cached_property
    def client(self) -> Any:
        """The boto3 client."""
        return s3_client()

    @cached_property
    def scratch_dir(self) -> Path:
        """This process's temporary folder on this machine."""
        return process_scratch(None)

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _url(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def list_objects(self, start: str = "", *, recursive: bool = True) -> Iterator[S3Object]:
        """Yield the objects whose names begin with `start`; without `recursive` only up to the next `/`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._key(start), **({} if recursive else {"Delimiter": "/"})
        )
        with translate_s3_errors(self._url(start)):
            remaining = iter(pages)
            while (objects := self._next_page(remaining, start)) is not None:
                yield from objects

    def _next_page(self, pages: Iterator[dict[str, Any]], start: str) -> list[S3Object] | None:
        """Return the objects of the next page of a listing, None after the last one.

        Raises:
            TransientError: The server's answer is no listing, as that of a proxy or of another service.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            page = next(pages, None)
            if page is None:
                return None
            folders = [
                S3Object(folder["Prefix"].removeprefix(self._prefix)) for folder in page.get("CommonPrefixes", [])
            ]
            files = [
                S3Object(
                    item["Key"].removeprefix(self._prefix),
                    int(item["Size"]),
                    item["ETag"],
                    item["LastModified"].timestamp(),
                )
                for item in page.get("Contents", [])
            ]
        except (BotoCoreError, ClientError):
            raise
        except Exception as error:  # botocore's parsers raise what their conversions raise.
            reason = f"the answer is not a listing of S3 ({one_line(error)[:200]})"
            raise TransientError(f"{self._url(start)}: {reason}; check AWS_ENDPOINT_URL_S3") from error
        return folders + files

    def download(self, name: str, target: Path) -> None:
        """Copy an object to the file `target`."""
        with translate_write_errors(target), translate_s3_errors(self._url(name)):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self._bucket, self._key(name), str(target))


class S3Backend(S3Location):
    """The storage backend that is a prefix of a bucket; each object's metadata holds the sha256 of its bytes."""

    lists_late = True

    def read(self, key: str) -> bytes | None:
        """Return the bytes at `key`, or None; raise `DamagedError` if their sha256 is not that of the metadata."""
        try:
            with translate_s3_errors(self._url(key)):
                response, data = self._get_object_with_retry(key)
        except MissingKeyError:
            return None
        if response["Metadata"].get("sha256", digest_bytes(data)) != digest_bytes(data):
            raise DamagedError(f"{self._url(key)}: its bytes are not those that were written")
        return data

    def _get_object_with_retry(self, key: str) -> tuple[dict[str, Any], bytes]:
        """Return the response to a GET and its body; boto3 does not retry a body that breaks off."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        def get() -> tuple[dict[str, Any], bytes]:
            response = self.client.get_object(Bucket=self._bucket, Key=self._key(key))
            return response, response["Body"].read()

        delays = (random.uniform(0, min(2.0**attempt / 4, 4.0)) for attempt in range(MAX_READS - 1))
        return call_with_retry(get, delays, (HTTPClientError, IncompleteReadError))

    def write(self, key: str, data: bytes) -> None:
        """See `LocalBackend`."""
        with translate_s3_errors(self._url(key)):
            arguments = _upload_args(digest_bytes(data))
            self.client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **arguments)

    def mark_used(self, key: str, data: bytes) -> None:
        """See `LocalBackend`; the object is written again, because S3 has no other way to renew its time."""
        with contextlib.suppress(Hand1000Error):
            self.write(key, data)

    def list_files(self, key: str) -> Iterator[StoredFile]:
        """See `LocalBackend`."""
        for item in self.list_objects(key):
            if item.name == key or item.name.startswith(f"{key}/"):
                yield StoredFile(item.name, item.size, item.modified)

    def remove(self, key: str) -> None:
        """See `LocalBackend`."""
        names = [item.name for item in self.list_objects(key) if item.name == key or item.name.startswith(f"{key}/")]
        for start in range(0, len(names), 1000):  # The limit of one request.
            batch = {"Objects": [{"Key": self._key(name)} for name in names[start : start + 1000]], "Quiet": True}
            with translate_s3_errors(self._url(key)):
                response = self.client.delete_objects(Bucket=self._bucket, Delete=batch)
            for refusal in response.get("Errors", []):
                url, code = f"s3://{self._bucket}/{refusal.get('Key')}", refusal.get("Code")
                raise Hand1000Error(f"{url}: not deleted: {code}; the access key needs s3:DeleteObject here")

    def file_sizes(self, key: str) -> dict[str, int]:
        """See `LocalBackend`."""
        folder = f"{key}/" if key else ""
        return {item.name.removeprefix(folder): item.size for item in self.list_objects(folder)}

    def find_damage(self, key: str, manifest: Manifest) -> str:
        """See `LocalBackend`; only sizes are compared, unless a reader has reported the tree."""
        sizes = self.file_sizes(key)
        for entry in manifest.files:
            size = sizes.get(entry.name)
            # A server may list late what was just written; a request for the object itself shows it.
            size = self._object_size(f"{key}/{entry.name}") if size != entry.size else size
            if size != entry.size:
                return f"{entry.name}: {'missing' if size is None else describe_damage(size, entry.size)}"
        if _SUSPECT in sizes:
            damaged = self._find_other_bytes(key, manifest)
            if damaged:
                return f"{damaged}: {OTHER_BYTES}"
            with contextlib.suppress(Hand1000Error):
                self.remove(f"{key}/{_SUSPECT}")
        return ""

    def verify_tree(self, key: str, manifest: Manifest) -> bool:
        """See `LocalBackend`; every object is read."""
        return not self._find_other_bytes(key, manifest)

    def report_damage(self, key: str) -> None:
        """Mark the tree at `key`, so that `find_damage` reads its bytes from now on, if the bucket is writable."""
        with contextlib.suppress(Hand1000Error):
            self.write(f"{key}/{_SUSPECT}", b"")

    def _object_size(self, key: str) -> int | None:
        try:
            with translate_s3_errors(self._url(key)):
                return self.client.head_object(Bucket=self._bucket, Key=self._key(key))["ContentLength"]
        except MissingKeyError:
            return None

    def _find_other_bytes(self, key: str, manifest: Manifest) -> str:
        """Return the first object of a tree whose bytes are not those of the manifest, or "", by reading them."""
        with tempfile.TemporaryDirectory(dir=self.scratch_dir) as folder:
            try:
                self.get_tree(key, manifest, Path(folder))
            except MissingKeyError:
                names = (entry.name for entry in manifest.files)
                return next((name for name in names if self._object_size(f"{key}/{name}") is None), "a file")
            return find_damage(Path(folder), manifest)

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """See `LocalBackend`; files are uploaded in parallel."""

        def start(manager: Any, entry: FileEntry) -> Any:
            name = self._key(f"{key}/{entry.name}")
            extra = _upload_args(entry.sha256)
            return manager.upload(str(directory / entry.name), self._bucket, name, extra_args=extra)

        with translate_s3_errors(self._url(key)), self._transfers() as manager:
            for future in [start(manager, entry) for entry in manifest.files]:
                future.result()

    def get_tree(self, key: str, manifest: Manifest, target: Path) -> None:
        """See `LocalBackend`; files are downloaded in parallel, and each gets its name when it is complete."""

        def start(manager: Any, entry: FileEntry) -> Any:
            path = safe_join(target, entry.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            return manager.download(self._bucket, self._key(f"{key}/{entry.name}"), str(path))

        with translate_s3_errors(self._url(key)), translate_write_errors(target), self._transfers() as manager:
            target.mkdir(parents=True, exist_ok=True)
            for entry in manifest.files:
                if not entry.size:  # s3transfer asks for a range, which no server has of an empty object.
                    write_bytes(safe_join(target, entry.name), b"")
            for entry, future in [(entry, start(manager, entry)) for entry in manifest.files if entry.size]:
                with translate_s3_errors(self._url(f"{key}/{entry.name}")):
                    future.result()

    def describe_kept_copies(self) -> list[str]:
        """See `LocalBackend`: the versions of objects, if the bucket keeps them."""
        url = f"s3://{self._bucket}"
        try:
            with translate_s3_errors(url):
                state = self.client.get_bucket_versioning(Bucket=self._bucket).get("Status", "")
        except Hand1000Error as error:
            return [f"{url}: unknown whether the bucket keeps versions of removed objects: {error}"]
        if not state:
            return []
        return [f"{url}: versioning is {state.lower()}; delete the versions of removed objects, or let them expire"]

    def local_path(self, key: str) -> Path | None:
        """Return None: a bucket is not a folder."""
        return None

    @contextlib.contextmanager
    def _transfers(self) -> Iterator[Any]:
        """A manager that moves several files, and several parts of a large one, at the same time."""
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        parts = {"multipart_threshold": _PART_BYTES, "multipart_chunksize": _PART_BYTES, "max_concurrency": 8}
        config = TransferConfig(**parts, num_download_attempts=MAX_READS, preferred_transfer_client="classic")
        with create_transfer_manager(self.client, config) as manager:
            yield manager
