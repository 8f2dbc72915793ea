import numpy as np
import pytest
import torch

from vidcls_batch.stages.host_copies import CLIPS_PER_COPY, HostCopies
from vidcls_batch.stages.usage import UsageTally, WorkerUsage


def test_on_the_cpu_nothing_is_cut_and_nothing_is_copied() -> None:
    copies = HostCopies("cpu")
    frames = np.arange(20, dtype=np.uint8).reshape(20, 1)
    assert copies.parts(20) == [slice(0, 20)]
    given = copies.start(frames)()
    assert given.data_ptr() == frames.ctypes.data


def test_on_cuda_a_block_is_cut_so_that_copies_can_overlap() -> None:
    parts = HostCopies("cuda").parts(2 * CLIPS_PER_COPY + 3)
    assert [range(2 * CLIPS_PER_COPY + 3)[part] for part in parts] == [range(8), range(8, 16), range(16, 19)]


@pytest.mark.gpu
def test_every_copy_arrives_though_buffers_and_memory_are_used_again() -> None:
    copies = HostCopies("cuda")
    blocks = [np.full((8, 16, 64, 64, 3), i, np.uint8) for i in range(20)]
    coming = copies.start(blocks[0])
    sums = []
    for following in [*blocks[1:], None]:
        here = coming()
        sums.append(here.float().mean())
        if following is not None:
            coming = copies.start(following)
    assert [round(float(s)) for s in sums] == list(range(20))
    assert torch.cuda.is_available()


def test_the_last_word_of_each_worker_counts() -> None:
    tally = UsageTally()
    assert tally.busy_share is None
    tally.add("one", WorkerUsage(3.0, 4.0))
    tally.add("two", WorkerUsage(0.0, 4.0))
    tally.add("one", WorkerUsage(1.0, 2.0))  # an older one that came late
    assert tally.busy_share == pytest.approx(3.0 / 8.0)
