"""Objects on any fsspec store: read a clip's bytes, list a prefix, keep a run's folder.

The only package that reads storage settings from the environment; errors it raises are plain Python ones
(FileNotFoundError, PermissionError, IsADirectoryError) or StorageError with the next step in its message.
"""

from vidcls_batch.storage.allowed import AllowedUris
from vidcls_batch.storage.objects import ObjectInfo, list_objects, read_object, stat_object
from vidcls_batch.storage.options import StorageOptions, absolute_uri, storage_options
from vidcls_batch.storage.ranges import read_range
from vidcls_batch.storage.store import Store, open_store

__all__ = [
    "AllowedUris",
    "ObjectInfo",
    "StorageOptions",
    "Store",
    "absolute_uri",
    "list_objects",
    "open_store",
    "read_object",
    "read_range",
    "stat_object",
    "storage_options",
]
