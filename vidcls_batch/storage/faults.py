"""What went wrong on a store, said so that a person knows the next step."""

import errno
import os
import shutil
from asyncio import TimeoutError as AsyncTimeoutError
from collections.abc import Iterator

from vidcls_batch.errors import StorageError
from vidcls_batch.storage.options import is_local, local_path

AGAIN = "then run the same command again: finished work is kept"

# errno -> (message, transient)
_OS_FAULTS: dict[int, tuple[str, bool]] = {
    errno.EDQUOT: ("your disk quota is used up; free some space, " + AGAIN, False),
    errno.EFBIG: ("the file would pass the size limit of this process or file system; raise it, " + AGAIN, False),
    errno.EROFS: ("the file system is read-only; mount it writable, " + AGAIN, False),
    errno.EIO: ("the device answered with an I/O error; check the disk or mount, " + AGAIN, False),
    errno.ESTALE: ("the network mount went stale; mount it again, " + AGAIN, True),
    errno.ENOTCONN: ("the mount is not connected; mount it again, " + AGAIN, True),
    errno.EBUSY: ("the store is busy (slow down or service unavailable); wait a little, " + AGAIN, True),
    errno.EREMOTEIO: ("the store answered with an internal error; wait a little, " + AGAIN, True),
    errno.ETIMEDOUT: ("the store did not answer in time; check the network, " + AGAIN, True),
    errno.ECONNRESET: ("the connection was reset; check the network, " + AGAIN, True),
    errno.ECONNREFUSED: ("the connection was refused; check the endpoint and that the server runs, " + AGAIN, True),
    errno.EMFILE: ("too many open files; raise `ulimit -n`, " + AGAIN, True),
}

# S3 error code -> message. What is not here keeps the server's own words.
_S3_FAULTS: dict[str, str] = {
    "NoSuchBucket": "the bucket does not exist at this endpoint; create it, or correct the bucket or endpoint_url",
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID, the profile or the role",
    "SignatureDoesNotMatch": "the secret key is wrong for this access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired; renew the credentials, " + AGAIN,
    "RequestTimeTooSkewed": "this machine's clock is off by minutes; set it, " + AGAIN,
    "QuotaExceeded": "the store's quota is used up; free some space, " + AGAIN,
    "InvalidBucketName": "this is no valid bucket name",
}

# Class names of the clients of S3, http(s), the hub, Google and Azure: naming them costs no import for a local run.
_CLIENT_FAULTS: dict[str, tuple[str, bool]] = {
    "NoCredentialsError": (
        "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, "
        "or storage_options {anon: true} for a public bucket",
        False,
    ),
    "PartialCredentialsError": ("the credentials are incomplete; set both the access key and the secret key", False),
    "EndpointConnectionError": ("nothing answers at the endpoint; check endpoint_url and the network, " + AGAIN, True),
    "ConnectTimeoutError": ("the endpoint does not answer; check endpoint_url and the network, " + AGAIN, True),
    "ReadTimeoutError": ("the store stopped answering; check the network, " + AGAIN, True),
    "ConnectionClosedError": ("the store closed the connection, " + AGAIN, True),
    "HTTPClientError": ("the connection to the store failed; check the network, " + AGAIN, True),
    "ResponseParserError": ("what answers at the endpoint does not speak S3; check endpoint_url", False),
    "ClientPayloadError": ("the body ended early; the connection was cut, " + AGAIN, True),
    "IncompleteRead": ("the body ended early; the connection was cut, " + AGAIN, True),
    "ClientConnectorError": ("nothing answers at that address; check it and the network, " + AGAIN, True),
    "ClientOSError": ("the connection to the server failed; check the network, " + AGAIN, True),
    "ServerDisconnectedError": ("the server closed the connection, " + AGAIN, True),
    "TransportError": ("the connection to the store failed; check the network, " + AGAIN, True),
    "ServiceRequestError": ("nothing answers at the endpoint; check it and the network, " + AGAIN, True),
    "ServiceResponseError": ("the store stopped answering; check the network, " + AGAIN, True),
    "DefaultCredentialsError": ("no credentials found; give the machine a service account with rights here", False),
    "FSTimeoutError": ("no answer in time; check the network, " + AGAIN, True),
    "ParamValidationError": ("the store's client refuses these parameters; check bucket and key", False),
}

NOT_HERE = (FileNotFoundError, PermissionError, IsADirectoryError)


def s3_code(error: BaseException) -> str | None:
    """The S3 error code behind an exception, e.g. `NoSuchBucket`; None where there is none."""
    for candidate in _causes(error):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code"))
    return None


def http_status(error: BaseException) -> int | None:
    """The HTTP status that a server answered with; None where there is none."""
    for candidate in _causes(error):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        # aiohttp's name; httpx's and azure's; gcsfs's, whose codes may be text
        for holder, name in ((candidate, "status"), (response, "status_code"), (candidate, "code")):
            status = getattr(holder, name, None)
            if isinstance(status, int) or (isinstance(status, str) and status.isdecimal()):
                return int(status)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def read_fault(error: BaseException, *, uri: str) -> Exception:
    """The error a reader of one object sees: FileNotFoundError, PermissionError, IsADirectoryError or StorageError."""
    if isinstance(error, StorageError):
        return error
    code = s3_code(error)
    if isinstance(error, NotADirectoryError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    if type(error).__name__ == "NoCredentialsError":
        return PermissionError(errno.EACCES, _CLIENT_FAULTS["NoCredentialsError"][0], uri)
    if isinstance(error, NOT_HERE):
        reason = _S3_FAULTS.get(code or "", error.strerror or str(error))
        return type(error)(error.errno or _ERRNO[type(error)], reason, uri)
    if (kind := _BY_HTTP_STATUS.get(http_status(error) or 0)) is not None:
        return kind(_ERRNO[kind], os.strerror(_ERRNO[kind]), uri)
    return StorageError(f"Cannot read {uri}: {_explain(error, uri)}", transient=_is_transient(error))


def store_fault(error: BaseException, *, uri: str, doing: str) -> Exception:
    """The error a run's store raises; `doing` is `write`, `read`, `list` or `delete`. Missing objects stay
    FileNotFoundError, all else becomes StorageError: with the store itself at fault no row could help.
    """
    if isinstance(error, StorageError):
        return error
    if isinstance(error, FileNotFoundError) and s3_code(error) != "NoSuchBucket" and doing == "read":
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return StorageError(f"Cannot {doing} {uri}: {_explain(error, uri)}", transient=_is_transient(error))


_BY_HTTP_STATUS: dict[int, type[OSError]] = {
    401: PermissionError,
    403: PermissionError,
    404: FileNotFoundError,
    410: FileNotFoundError,
}
_ERRNO: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    IsADirectoryError: errno.EISDIR,
}


def _explain(error: BaseException, uri: str) -> str:
    code = s3_code(error)
    if code in _S3_FAULTS:
        return _S3_FAULTS[code]
    for kind in type(error).__mro__:
        if kind.__name__ in _CLIENT_FAULTS:
            return f"{_CLIENT_FAULTS[kind.__name__][0]} ({error})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{_free_space(uri)}; free some space, {AGAIN}"
    if isinstance(error, PermissionError):
        return f"permission denied ({error.strerror or error}); grant access to this path, {AGAIN}"
    if isinstance(error, OSError) and error.errno in _OS_FAULTS:
        return f"{_OS_FAULTS[error.errno][0]} ({error})"
    if isinstance(error, TimeoutError | AsyncTimeoutError):
        return f"no answer in time; check the network, {AGAIN}"
    return f"{type(error).__name__}: {error}"


def _is_transient(error: BaseException) -> bool:
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    for kind in type(error).__mro__:
        if kind.__name__ in _CLIENT_FAULTS:
            return _CLIENT_FAULTS[kind.__name__][1]
    if isinstance(error, OSError) and error.errno in _OS_FAULTS:
        return _OS_FAULTS[error.errno][1]
    return isinstance(error, TimeoutError | AsyncTimeoutError | ConnectionError)


def _free_space(uri: str) -> str:
    if not is_local(uri):
        return ""
    folder = local_path(uri)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return f" ({shutil.disk_usage(folder).free / 1e6:.0f} MB free on {folder})"
