"""Which file system a URI lies on, and how to reach it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from vidcls_batch.config import RunConfig
from vidcls_batch.errors import StorageError

# A dead socket never errors by itself: without these, one request stalls a whole run.
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
# Tries of one request inside the S3 client (connection errors, 500, 502, 503, 504, throttling), with back-off.
S3_ATTEMPTS = 4
# Scheme -> the extra of this package that brings its file system.
EXTRAS = {"gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure", "hf": "hf"}


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach the stores of a run. Holds no secrets: credentials come from each process's own environment or
    role, so this travels to workers and into logs.
    """

    endpoint_url: str | None = None  # of s3:// URIs; None is Amazon's
    options: Mapping[str, Any] = field(default_factory=dict)  # further keyword arguments of the fsspec file system
    web_hosts: tuple[str, ...] | None = None  # http(s) goes to public addresses and these hosts only; None: anywhere


def storage_options(run: RunConfig) -> StorageOptions:
    """The options of a run; the endpoint comes from the config, else from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL."""
    endpoint = run.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return StorageOptions(endpoint_url=endpoint or None, options=run.storage_options)


def protocol_of(uri: str) -> str:
    """The scheme of a URI; `file` for a plain path."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else "file"


def is_local(uri: str) -> bool:
    """Whether the URI is a path of this machine."""
    return protocol_of(uri) in ("file", "local")


def local_path(uri: str) -> Path:
    """The absolute path behind a local URI or plain path; `~` is expanded."""
    plain = uri.partition("://")[2] if "://" in uri else uri
    return Path(os.path.normpath(Path(plain).expanduser().absolute()))


def absolute_uri(uri: str, *, base: str | None = None) -> str:
    """`uri` as it can be opened from anywhere: a relative path is taken from `base`, else from the working directory.

    >>> absolute_uri("clips/a.mp4", base="s3://bucket/lists")
    's3://bucket/lists/clips/a.mp4'
    >>> absolute_uri("s3://bucket/a.mp4", base="/data")
    's3://bucket/a.mp4'
    """
    if "://" in uri:
        return uri
    if base is not None and not uri.startswith(("/", "~")):
        return f"{base.rstrip('/')}/{uri}"
    return str(local_path(uri))


def open_filesystem(uri: str, *, options: StorageOptions) -> tuple[AbstractFileSystem, str]:
    """The file system of a URI and the path on it.

    Looked up at each use and never kept: fsspec caches instances per process, so a fork gets its own event loop and
    all threads share one client. Raises StorageError for a scheme nothing is installed for.
    """
    protocol = protocol_of(uri)
    arguments = dict(options.options)
    if protocol in ("s3", "s3a"):
        arguments = _s3_arguments(options)
    elif protocol in ("file", "local", "memory", "http", "https"):
        arguments = {}  # the run's options are meant for its object store
    if protocol in ("http", "https") and options.web_hosts is not None:
        from vidcls_batch.storage.allowed import web_client_options

        arguments = web_client_options(options.web_hosts)
    try:
        filesystem = fsspec.filesystem(protocol, **arguments)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        install = f"pip install 'vidcls-batch[{extra}]'" if extra else f"the fsspec package for {protocol}://"
        raise StorageError(f"Cannot open {uri}: {protocol}:// needs {install} here and on each worker.") from error
    except ValueError as error:
        raise StorageError(
            f"Cannot open {uri}: {error}. Use a local path, s3://, or install the fsspec package for {protocol}://."
        ) from error
    return filesystem, str(filesystem._strip_protocol(uri))


def _s3_arguments(options: StorageOptions) -> dict[str, Any]:
    client_config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": 64,
        "retries": {"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
    }
    if options.endpoint_url:
        # Trailing checksums, the client's default, are refused by older S3 servers.
        client_config["request_checksum_calculation"] = "when_required"
        client_config["response_checksum_validation"] = "when_required"
    given = dict(options.options)
    client_config |= given.pop("config_kwargs", {})
    return {
        "endpoint_url": options.endpoint_url,
        "use_listings_cache": False,
        "config_kwargs": client_config,
        **given,
    }
