"""Whether a clip's object is fetched whole or in parts."""

from dataclasses import replace
from functools import partial

from vidcls_batch.errors import ClipError, ObjectTooLargeError, StorageError
from vidcls_batch.stages.fetch import Body, FetchSettings, retried
from vidcls_batch.storage import AllowedUris, StorageOptions, read_object, read_range, stat_object
from vidcls_batch.video.mp4_index import index_stands_apart
from vidcls_batch.video.source import BlockCache


class ObjectReader:
    """Reads objects: small ones whole, in one GET; of large ones that have an index, what the decoder asks for.

    How large an object is shows in the reply to the first GET: for small ones nothing is asked beforehand, of large
    ones the body is not read.
    """

    def __init__(
        self, *, storage: StorageOptions, fetch: FetchSettings, max_bytes: int, allowed: AllowedUris | None = None
    ) -> None:
        self._allowed = allowed or AllowedUris()
        self._storage = replace(storage, web_hosts=self._allowed.web_hosts)
        self._settings, self._max_bytes = fetch, max_bytes

    def __call__(self, uri: str) -> bytes | Body:
        """The object, or what can fetch its parts. Raises what `read_object` raises, and ClipError."""
        self._allowed.check(uri)
        above = self._settings.range_above_bytes
        if above is None or above >= self._max_bytes:
            return self._whole(uri, self._max_bytes)
        try:
            return self._whole(uri, above)
        except ObjectTooLargeError as error:
            if error.num_bytes > self._max_bytes:
                raise
        source = self._source(uri)
        requests = 2  # the GET whose body was not read, and the look at size and version
        try:
            if index_stands_apart(source):
                return Body(source, requests + source.traffic.requests, source.traffic.num_bytes)
        except (ClipError, StorageError):  # a server that has no ranges
            requests += 1
        data = self._whole(uri, self._max_bytes)
        return Body(data, requests + source.traffic.requests + 1, source.traffic.num_bytes + len(data))

    def _whole(self, uri: str, max_bytes: int) -> bytes:
        return read_object(uri, options=self._storage, max_bytes=max_bytes, timeout_s=self._settings.timeout_s)

    def _source(self, uri: str) -> BlockCache:
        found = stat_object(uri, options=self._storage)
        if found.num_bytes > self._max_bytes:
            message = f"{uri} has {found.num_bytes} bytes; allowed are {self._max_bytes}"
            raise ObjectTooLargeError(message, num_bytes=found.num_bytes)
        read = partial(
            read_range,
            uri,
            options=self._storage,
            version=found.version,
            timeout_s=self._settings.timeout_s,
        )

        def fetch(start: int, stop: int) -> bytes:
            attempt = retried(partial(read, start, stop), name=uri, settings=self._settings)
            source.traffic.requests += attempt.tries - 1  # the last one is counted by the cache
            if attempt.error is not None:
                raise attempt.error
            assert isinstance(attempt.value, bytes)  # a value or an error
            return attempt.value

        identity = f"{uri} {found.num_bytes} {found.version}"
        source = BlockCache(
            found.num_bytes, identity=identity, fetch=fetch, capacity_bytes=self._settings.range_cache_bytes
        )
        source.version = found.version
        return source
