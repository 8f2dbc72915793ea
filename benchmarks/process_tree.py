"""Whose process is it: a run's process tree by the part each process plays, for benchmarks that account for a run."""

import os
from collections import defaultdict

import psutil

GROUPS = {
    "decode worker": "_decode_block",
    "classifier": "MapWorker",
    "reader": "_read_shares",
    "idle worker": "ray::IDLE",
    "decoder child": "sandbox",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
}


def processes() -> dict[str, list[psutil.Process]]:
    """This process as `driver`, its descendants by group; what fits none is `other`."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    found["driver"].append(psutil.Process())
    for child in psutil.Process().children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        found[next((group for group, mark in GROUPS.items() if mark in title), "other")].append(child)
    return found


class CpuWatch:
    """CPU seconds a run's processes spend, by group, from its making on. Processes may come, go and change titles."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self.spent: dict[str, float] = defaultdict(float)
        self._look(count=False)

    def look(self) -> None:
        """Add what was spent since the last look; a process's share goes to the group it is in now."""
        self._look(count=True)

    def _look(self, *, count: bool) -> None:
        for group, members in processes().items():
            for process in members:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                now = times.user + times.system
                if count:
                    self.spent[group] += now - self._last.get(process.pid, 0.0)
                self._last[process.pid] = now


def private_memory(process: psutil.Process) -> int:
    """Resident bytes without shared memory, which counts in each process that has touched the object store."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
