"""Memory of large tensors on a CPU: fewer pages, or kept; each case in a process of its own, whose setting it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from vidcls_batch.config import ResourcesConfig
from vidcls_batch.stages import host_memory
from vidcls_batch.stages.host_memory import give_freed_memory_back, set_host_memory

CASE = """
import resource, sys
import torch
import vidcls_batch.stages.classify  # what a worker has imported by then
from vidcls_batch.preflight.memory import resident_bytes
from vidcls_batch.stages.host_memory import give_freed_memory_back, set_host_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

assert set_host_memory(sys.argv[1])
before, started = resident_bytes(), faults()
for _ in range(20):
    torch.ones(48 << 20, dtype=torch.uint8)
print(faults() - started)
print((resident_bytes() - before) >> 20)
give_freed_memory_back()
print((resident_bytes() - before) >> 20)
"""
PAGES = 20 * (48 << 20) // 4096  # of 20 tensors of 48 MiB
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def figures(kind: str) -> list[int]:
    """Page faults of 20 tensors of 48 MiB, one at a time; MiB the process has grown by, and once it has given back."""
    done = subprocess.run([sys.executable, "-c", CASE, kind], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not SETTING.exists() or "[never]" in SETTING.read_text(), reason="the kernel gives no huge pages")
def test_huge_pages_are_few_and_go_back_at_once():
    faults, grown, _ = figures("huge_pages")
    assert faults < PAGES / 4
    assert grown < 30


@pytest.mark.skipif(host_memory._glibc() is None, reason="the C library is not glibc")
def test_kept_memory_is_used_again_and_can_be_given_back():
    faults, grown, given_back = figures("kept")
    assert faults < PAGES / 4
    assert 40 < grown < 150
    assert given_back < 30


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(host_memory, "_glibc", lambda: None)
    assert set_host_memory("kept") is False
    assert set_host_memory("plain")
    give_freed_memory_back()


def test_huge_pages_are_the_default():
    assert ResourcesConfig().host_memory == "huge_pages"
