"""Single objects anywhere: read one, look at one, list those below a folder."""

import asyncio
import errno
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.asyn import sync
from fsspec.spec import AbstractFileSystem

from vidcls_batch.errors import ObjectTooLargeError, StorageError
from vidcls_batch.storage.faults import read_fault, store_fault
from vidcls_batch.storage.options import StorageOptions, is_local, local_path, open_filesystem, protocol_of


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    path: str  # a full URI, or relative to the store it was listed from
    num_bytes: int
    version: str = ""  # changes whenever the content does: an ETag or a modification time; "" where unknown


def read_object(uri: str, *, options: StorageOptions, max_bytes: int | None = None, timeout_s: float = 60.0) -> bytes:
    """The whole object, in one GET on S3 and http(s).

    Raises FileNotFoundError, PermissionError, IsADirectoryError, ObjectTooLargeError (before the body is read),
    or StorageError, whose `transient` says whether to try again. `timeout_s` bounds remote reads as a whole.
    """
    try:
        if is_local(uri):
            return _read_local(local_path(uri), max_bytes=max_bytes)
        filesystem, path = open_filesystem(uri, options=options)
        reader = _READERS.get(protocol_of(uri))
        if reader is not None:
            return run_on(filesystem, reader, filesystem, path, max_bytes, timeout_s=timeout_s)
        if max_bytes is not None:
            _check_size(uri, int(filesystem.info(path).get("size") or 0), max_bytes)
        return bytes(filesystem.cat_file(path))
    except store_errors() as error:
        raise read_fault(error, uri=uri) from error


def stat_object(uri: str, *, options: StorageOptions) -> ObjectInfo:
    """Size and version of one object. Raises what `read_object` raises; IsADirectoryError for a folder."""
    try:
        if is_local(uri):
            status = local_path(uri).stat()
            if local_path(uri).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), uri)
            return ObjectInfo(uri, status.st_size, str(status.st_mtime_ns))
        filesystem, path = open_filesystem(uri, options=options)
        info = filesystem.info(path)
    except store_errors() as error:
        raise read_fault(error, uri=uri) from error
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), uri)
    version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
    return ObjectInfo(uri, int(info.get("size") or 0), str(version))


def list_objects(uri: str, *, options: StorageOptions) -> Iterator[ObjectInfo]:
    """All objects below the folder `uri`, in an order that is the same each time; pages stream, nothing is kept.

    Raises FileNotFoundError for a missing local folder, StorageError for a missing bucket or a store at fault.
    """
    try:
        if is_local(uri):
            yield from _list_local(local_path(uri))
            return
        filesystem, path = open_filesystem(uri, options=options)
        lister = _list_s3 if protocol_of(uri) in ("s3", "s3a") else _list_any
        for found, num_bytes, version in lister(filesystem, path):
            yield ObjectInfo(f"{protocol_of(uri)}://{found.lstrip('/')}", num_bytes, version)
    except store_errors() as error:
        if isinstance(error, FileNotFoundError) and is_local(uri):
            raise
        raise store_fault(error, uri=uri, doing="list") from error


def run_on(
    filesystem: AbstractFileSystem, function: Callable[..., Awaitable[bytes]], *args: object, timeout_s: float
) -> bytes:
    """Run a coroutine on the file system's loop and give up, cancelling it, after `timeout_s`."""

    async def bounded() -> bytes:
        return await asyncio.wait_for(function(*args), timeout_s)

    return bytes(sync(filesystem.loop, bounded))


# What clients raise that is no OSError: of S3, of http(s), of hf:// (either name), of gs:// and of abfs://.
_CLIENT_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "httpx": ("HTTPError",),
    "httpx2": ("HTTPError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}


def store_errors() -> tuple[type[BaseException], ...]:
    """What stores and their clients raise. Only clients this process has loaded count: naming them must not import."""
    errors: list[type[BaseException]] = [OSError, TimeoutError, asyncio.TimeoutError]
    for module, names in _CLIENT_ERRORS.items():
        if module in sys.modules:
            errors += [getattr(sys.modules[module], name) for name in names]
    return tuple(errors)


def _read_local(path: Path, *, max_bytes: int | None) -> bytes:
    with path.open("rb", buffering=0) as file:
        if max_bytes is not None:
            _check_size(str(path), os.fstat(file.fileno()).st_size, max_bytes)
        return file.readall()


async def _read_s3(filesystem: Any, path: str, max_bytes: int | None) -> bytes:
    bucket, key, version = filesystem.split_path(path)
    if not key:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    versioned = {"VersionId": version} if version else {}
    response = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **versioned)
    async with response["Body"] as body:
        _check_size(f"s3://{path}", response["ContentLength"], max_bytes)
        data: bytes = await body.read()
    if len(data) != response["ContentLength"]:
        raise StorageError(f"s3://{path} ended after {len(data)} of {response['ContentLength']} bytes", transient=True)
    return data


async def _read_http(filesystem: Any, path: str, max_bytes: int | None) -> bytes:
    session = await filesystem.set_session()
    async with session.get(filesystem.encode_url(path), **filesystem.kwargs) as response:
        response.raise_for_status()
        _check_size(path, response.content_length or 0, max_bytes)
        chunks, received = [], 0
        async for chunk in response.content.iter_chunked(1 << 20):
            chunks.append(chunk)
            received += len(chunk)
            _check_size(path, received, max_bytes)  # servers need not say the length beforehand
    return b"".join(chunks)


_READERS: dict[str, Callable[..., Awaitable[bytes]]] = {
    "s3": _read_s3,
    "s3a": _read_s3,
    "http": _read_http,
    "https": _read_http,
}


def _check_size(uri: str, num_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and num_bytes > max_bytes:
        raise ObjectTooLargeError(f"{uri} has {num_bytes} bytes; allowed are {max_bytes}", num_bytes=num_bytes)


def _list_local(folder: Path) -> Iterator[ObjectInfo]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda e: e.name)
    for entry in ordered:
        try:
            is_folder, status = entry.is_dir(), entry.stat()
        except FileNotFoundError:
            continue  # deleted since the folder was read
        if is_folder:
            yield from _list_local(Path(entry.path))
        elif entry.is_file():
            yield ObjectInfo(entry.path, status.st_size, str(status.st_mtime_ns))


def _list_s3(filesystem: Any, path: str) -> Iterator[tuple[str, int, str]]:
    # By pages: fsspec's own find() keeps about 1.5 KB for each of ten million objects.
    bucket, key, _ = filesystem.split_path(path)
    request = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    while True:
        page = filesystem.call_s3("list_objects_v2", **request)
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):
                yield f"{bucket}/{found['Key']}", int(found["Size"]), str(found.get("ETag", ""))
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _list_any(filesystem: AbstractFileSystem, path: str) -> Iterator[tuple[str, int, str]]:
    found = filesystem.find(path, detail=True)
    for name in sorted(found):
        info = found[name]
        yield name, int(info.get("size") or 0), str(info.get("ETag") or info.get("mtime") or info.get("created") or "")
