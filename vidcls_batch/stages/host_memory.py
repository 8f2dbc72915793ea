"""How a worker on a CPU gets the memory of large tensors, which the kernel hands out page by page.

glibc maps each large tensor anew and unmaps it when it is freed: a 3D network touches hundreds of thousands of fresh
pages a clip, in up to a third of its time. See docs/decisions/0066-huge-pages-on-the-cpu.md.
"""

import ctypes
import gc
import os
from functools import lru_cache

from vidcls_batch.config import HostMemory

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1
# torch looks at it once, when it allocates its first tensor.
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def set_host_memory(kind: HostMemory) -> bool:
    """Have this process's large tensors come so from now on; False where the C library cannot. Before any tensor.

    `huge_pages`: in pages of 2 MB where the kernel gives them on request, 512 times fewer. `kept`: freed memory stays
    for the next tensor, so that the process holds more than it uses. `plain`: as it comes.
    """
    if kind == "huge_pages":
        os.environ.setdefault(_HUGE_PAGES, "1")
    if kind != "kept":
        return True
    library = _glibc()
    if library is None:
        return False
    # No mapping of their own for large blocks; the heap's end shrinks only when more than this is free there.
    return bool(library.mallopt(_M_MMAP_MAX, 0)) and bool(library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))


def give_freed_memory_back() -> None:
    """Give what is free now to the kernel, so that the process's size says what it uses."""
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
    except (OSError, AttributeError, TypeError):  # no such function: musl, macOS; TypeError: Windows
        return None
    library.mallopt.argtypes, library.mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    library.malloc_trim.argtypes, library.malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
    return library
