"""Many small objects put at once: an object store answers each after tens of milliseconds."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from vidcls_batch.storage import Store

PUTS_AT_ONCE = 8


def put_all(store: Store, objects: Iterable[tuple[str, bytes]]) -> None:
    """Create each `path, data` that is absent; at most a few are in memory. Raises the first StorageError."""
    waiting: deque[Future[bool]] = deque()
    with ThreadPoolExecutor(PUTS_AT_ONCE, thread_name_prefix="put") as pool:
        try:
            for path, data in objects:
                waiting.append(pool.submit(store.put_if_absent, path, data))
                if len(waiting) == 2 * PUTS_AT_ONCE:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
