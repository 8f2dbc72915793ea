"""How much memory processes hold, from /proc; Linux only, like the decoder's sandbox."""

import os
from pathlib import Path

_PROC = Path("/proc")


def resident_bytes(pid: int | None = None) -> int:
    """What process `pid` (default: this one) holds now; 0 for a process that is gone."""
    return _status_bytes(os.getpid() if pid is None else pid, "VmRSS")


def largest_peak_of_children() -> int:
    """The most that any living descendant of this process has ever held, bytes; 0 where there is none."""
    return max((_status_bytes(pid, "VmHWM") for pid in _descendants(os.getpid())), default=0)


def total_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_bytes(configured_mb: int | None, *, device: str) -> int | None:
    """Memory of one GPU: as configured, else what is free on this machine's; None where members run on the CPU."""
    if configured_mb is not None:
        return configured_mb << 20
    if device != "cuda":
        return None
    import torch

    # What this process can have of it: contexts and other processes take their part.
    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved())


def _status_bytes(pid: int, field: str) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), 0)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(pid: int) -> int | None:
    try:
        # The command's name may hold spaces and brackets; what follows its last bracket does not.
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
