"""What a user reads in place of the errors of botocore."""

import contextlib
import os
from collections.abc import Iterator

from hand1000.core.errors import Hand1000Error, TransientError, one_line
from hand1000.storage.digests import DamagedError

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
