"""A share of this machine's memory that takes nothing else with it when it is full."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The folder Ray's memory monitor reads; a node in a mount namespace of its own finds its share there instead.
ROOT = Path("/sys/fs/cgroup/memory")


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[list[str]]:
    """The command that runs another one with at most `limit_bytes`, as a container of that size. Skips where this
    process may not make one: it needs root and version 1 of control groups.
    """
    folder = ROOT / f"vidcls-test-{secrets.token_hex(4)}"
    if os.geteuid() != 0 or not (ROOT / "memory.limit_in_bytes").exists() or shutil.which("unshare") is None:
        pytest.skip("a memory limit for one node needs root, unshare and version 1 of control groups")
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        script = (
            f'echo $$ > {folder}/cgroup.procs && mount --make-rprivate / && mount --bind {folder} {ROOT} && exec "$@"'
        )
        yield ["unshare", "--mount", "sh", "-c", script, "sh"]
    finally:
        end = time.monotonic() + 30
        while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.2)
        folder.rmdir()
