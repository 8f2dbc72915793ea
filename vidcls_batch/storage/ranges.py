"""Part of an object, without the rest."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from vidcls_batch.errors import StorageError
from vidcls_batch.storage.faults import read_fault
from vidcls_batch.storage.objects import run_on, store_errors
from vidcls_batch.storage.options import StorageOptions, is_local, local_path, open_filesystem, protocol_of


def read_range(
    uri: str, start: int, stop: int, *, options: StorageOptions, version: str = "", timeout_s: float = 60.0
) -> bytes:
    """The bytes from `start` to before `stop`, in one request.

    `version` is that of ObjectInfo: an object that changed since raises StorageError rather than mix two contents
    (where the store can tell: S3, http(s) with strong ETags, local files). Raises what `read_object` raises.
    """
    try:
        if is_local(uri):
            data = _read_local(uri, start, stop, version)
        else:
            filesystem, path = open_filesystem(uri, options=options)
            reader = _READERS.get(protocol_of(uri))
            if reader is None:
                data = bytes(filesystem.cat_file(path, start=start, end=stop))
            else:
                data = run_on(filesystem, reader, filesystem, path, start, stop, version, timeout_s=timeout_s)
    except store_errors() as error:
        raise read_fault(error, uri=uri) from error
    if len(data) != stop - start:
        raise StorageError(f"{uri} gave {len(data)} of the {stop - start} bytes from {start}", transient=True)
    return data


def _read_local(uri: str, start: int, stop: int, version: str) -> bytes:
    with local_path(uri).open("rb", buffering=0) as file:
        if version and str(os.fstat(file.fileno()).st_mtime_ns) != version:
            raise StorageError(f"{uri} was changed while it was read; run the same command again")
        return os.pread(file.fileno(), stop - start, start)


async def _read_s3(filesystem: Any, path: str, start: int, stop: int, version: str) -> bytes:
    bucket, key, version_id = filesystem.split_path(path)
    conditions = {"IfMatch": version} if version else {}
    if version_id:
        conditions["VersionId"] = version_id
    response = await filesystem._call_s3(
        "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **conditions
    )
    async with response["Body"] as body:
        data: bytes = await body.read()
    return data


async def _read_http(filesystem: Any, path: str, start: int, stop: int, version: str) -> bytes:
    session = await filesystem.set_session()
    request = dict(filesystem.kwargs)
    headers = {**request.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}"}
    if version.startswith('"'):  # a weak ETag never matches
        headers["If-Match"] = version
    async with session.get(filesystem.encode_url(path), headers=headers, **request) as response:
        response.raise_for_status()
        if response.status != 206:
            raise StorageError(f"{path}: the server does not serve parts of files")
        data: bytes = await response.read()
    return data


_READERS: dict[str, Callable[..., Awaitable[bytes]]] = {
    "s3": _read_s3,
    "s3a": _read_s3,
    "http": _read_http,
    "https": _read_http,
}
