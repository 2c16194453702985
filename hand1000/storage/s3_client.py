"""The boto3 client of S3 and of servers that speak its protocol, and how the server encrypts what is written.

Settings come from the environment: the AWS_* variables and files that boto3 reads, or Flyte's FLYTE_AWS_ENDPOINT,
FLYTE_AWS_ACCESS_KEY_ID and FLYTE_AWS_SECRET_ACCESS_KEY, which take precedence. With `HAND1000_S3_ENCRYPTION` (AES256,
aws:kms or aws:kms,KEY_ID) the server encrypts what is written.
"""

import functools
import os
from typing import Any

from hand1000.core.errors import Hand1000Error

_ENCRYPTIONS = ("AES256", "aws:kms")
_ENCRYPTION_ATTEMPTS = 2


def s3_client(*, sign_payload: bool | None = None) -> Any:
    """Return a boto3 client for S3 with the environment's settings, which threads may share.

    Args:
        sign_payload: Whether signatures cover the bodies, which are hashed for that; None leaves that to botocore.

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
    s3: dict[str, Any] = {} if sign_payload is None else {"payload_signing_enabled": sign_payload}
    settings: dict[str, Any] = {
        "s3": s3,
        "retries": {"mode": "standard", **attempts},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 16,
    }
    if endpoint:
        # Servers other than Amazon's need not resolve bucket.host, nor know the newer checksum headers.
        settings |= {
            "s3": s3 | {"addressing_style": "path"},
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


def encryption_args() -> dict[str, Any]:
    """Return boto3's arguments that say how the server encrypts an object.

    Raises:
        Hand1000Error: `HAND1000_S3_ENCRYPTION` is malformed.
    """
    encryption = os.environ.get("HAND1000_S3_ENCRYPTION", "")
    kind, _, key = encryption.partition(",")
    if encryption and (kind not in _ENCRYPTIONS or (key and kind != "aws:kms")):
        raise Hand1000Error(f"HAND1000_S3_ENCRYPTION: {encryption!r}; choose AES256, aws:kms or aws:kms,KEY_ID")
    sse = {"ServerSideEncryption": kind} if encryption else {}
    return {**sse, **({"SSEKMSKeyId": key} if key else {})}
